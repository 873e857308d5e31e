//! The status page, in a real browser.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{Browser, Client, Echo, Infer, Look, Supervisor};

const PHONE: (u32, u32) = (390, 844);
const DESKTOP: (u32, u32) = (1280, 900);

/// `document.querySelectorAll`, by the text that an element has.
const ROW: &str = "[...document.querySelectorAll('#models tbody')].find(row => \
     row.querySelector('b').textContent ===";

fn row(model: &str, then: &str) -> String {
    format!("({ROW} '{model}'){then})")
}

/// Where pictures go: `BULKHEAD_PICTURES` if somebody wants to look at them.
fn keep(folder: &tempfile::TempDir, name: &str, picture: &[u8]) {
    assert!(picture.starts_with(b"\x89PNG"), "{name} is no picture");
    let wanted = std::env::var_os("BULKHEAD_PICTURES").map(PathBuf::from);
    let folder = wanted.unwrap_or_else(|| folder.path().to_owned());
    std::fs::write(folder.join(format!("{name}.png")), picture).expect("the folder is ours");
}

fn picture_everywhere(browser: &mut Browser, name: &str, before: impl Fn(&mut Browser)) {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    for (form, (width, height)) in [("phone", PHONE), ("desktop", DESKTOP)] {
        for scheme in ["light", "dark"] {
            browser.look(Look { width, height, scheme });
            before(browser);
            let wide = browser.run("return document.documentElement.scrollWidth", &[]);
            assert!(wide.as_u64() <= Some(u64::from(width)), "{form}: {wide} wide");
            keep(&folder, &format!("{name}-{form}-{scheme}"), &browser.picture());
        }
    }
}

#[test]
fn states_are_shown_and_change_while_one_looks() {
    let Some(mut browser) = Browser::start_or_skip("states_are_shown_and_change_while_one_looks")
    else {
        return;
    };
    let server = Supervisor::with_echo("steady")
        .echo("shaky", &Echo::default())
        .echo("wide", &Echo::default().versions(&[1, 2]))
        .config("broken", "this is no configuration")
        .set("restart.max_restarts", "2")
        .set("restart.backoff.initial", "8s")
        .set("restart.backoff.factor", "1.0")
        .set("repository.required", "[\"steady\"]")
        .set("models.steady.memory_limit", "256MiB")
        .start();
    let load = server.load_on("steady");
    load.wait_for_more(50);
    browser.open(server.metrics_address());
    browser.wait_until("a page that is live", "document.querySelector('#live.on')");
    for model in ["steady", "shaky", "wide"] {
        browser.wait_until(model, &row(model, ".querySelector('.state.good')"));
    }
    browser.wait_until("a model that is broken", &row("broken", ".querySelector('.state.bad')"));
    assert!(browser.text_of("#notices").contains("broken"));
    assert_eq!(browser.text_of("#server-state"), "Ready");

    // Its worker is killed: the page says so by itself, and that it is back.
    server.worker("shaky").kill(Signal::SIGSEGV);
    server.wait_for_generation("shaky", 2);
    server.worker("shaky").kill(Signal::SIGKILL);
    browser.wait_until("a restart", &row("shaky", ".querySelector('.state.warn, .state.busy')"));
    browser.wait_until("its reason", &row("shaky", ".innerText.includes('SIGKILL')"));
    server.wait_for_generation("shaky", 3);
    browser.wait_until("its return", &row("shaky", ".querySelector('.state.good')"));
    browser.run(&row("shaky", ".querySelector('button').click()"), &[]);
    browser.wait_until("its instances", &row("shaky", ".innerText.includes('generation 3')"));
    // What serves hides nothing of what does not.
    server.repository().echo("wide", &Echo::default().parameter("load_fail", "no such luck"));
    server.client().load("wide").assert_status(400);
    let told = "document.querySelector('#notices').innerText.includes('no such luck')";
    browser.wait_until("a load that was refused", told);
    load.wait_for_more(500);
    picture_everywhere(&mut browser, "live", |_| {});
    load.assert_no_errors();

    let own = format!("http://{}/", server.metrics_address());
    let strange: Vec<String> =
        browser.requests().into_iter().filter(|url| !url.starts_with(&own)).collect();
    let strange: Vec<&String> = strange.iter().filter(|url| url.starts_with("http")).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(browser.console(), Vec::<String>::new());
    // Whoever looks on sees that nobody answers any more.
    server.stop();
    browser.wait_until("silence", "document.querySelector('#live.off')");
    server.signal(Signal::SIGCONT);
    browser.wait_until("an answer", "document.querySelector('#live.on')");
}

/// What no server of a test has: GPUs, names that are markup, states that are rare.
fn imagined() -> Value {
    serde_json::from_str(include_str!("page/status.json")).expect("the file is JSON")
}

#[test]
fn whatever_the_server_says_is_text() {
    let test = "whatever_the_server_says_is_text";
    let Some(mut browser) = Browser::start_or_skip(test) else { return };
    let server = Supervisor::with_echo("m").start();
    browser.open(server.metrics_address());
    browser.wait_until("a page that is live", "document.querySelector('#live.on')");
    let show = |browser: &mut Browser| {
        // What the real server sends does not come in between.
        let script = "window.really ??= show; show = () => {}; really(arguments[0]); \
            document.querySelectorAll('.name[aria-expanded=false]').forEach((b, i) => i === 1 && b.click()); \
            really(arguments[0]);";
        browser.run(script, &[imagined()]);
    };
    show(&mut browser);
    let made = "return document.querySelectorAll('main script, main img, main b b').length";
    assert_eq!(browser.run(made, &[]), json!(0));
    assert!(browser.text_of("#models").contains("<script>alert(2)</script>"));
    picture_everywhere(&mut browser, "imagined", show);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn who_watches_is_bounded_and_nothing_can_be_changed() {
    let server = Supervisor::with_echo("m").start();
    let address = server.metrics_address();
    let page = Client::new(address).get("/");
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for (method, path, status) in [
        ("POST", "/", 405),
        ("POST", "/v2/repository/models/m/unload", 404),
        ("DELETE", "/metrics", 405),
        ("GET", "/v2/health/ready", 404),
        ("GET", "/../etc/passwd", 404),
    ] {
        let answer = Client::new(address).request(method, path, &[], b"").expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}");
    }
    let watch = || {
        let mut viewer = Client::new(address);
        viewer.send(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").expect("it listens");
        let status = viewer.receive_head().expect("an answer").status;
        (status, viewer)
    };
    let mut viewers: Vec<(u16, Client)> = (0..16).map(|_| watch()).collect();
    assert!(viewers.iter().all(|(status, _)| *status == 200));
    assert_eq!(watch().0, 503);
    viewers.pop();
    tests::wait::until_true("a seat that is free again", || watch().0 == 200);
    server.infer(&Infer::echo("m")).assert_status(200);
}
