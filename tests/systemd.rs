//! The server under a real systemd, installed as on any machine.

use tests::machine::Machine;
use tests::machine::SERVICE;
use tests::{Client, Echo, Infer, Load, wait};

/// What `systemd-analyze security` may find exposed, in tenths.
const MOST_EXPOSED: u32 = 30;

#[test]
fn units_are_without_fault_and_closed_where_they_can_be() {
    let test = "units_are_without_fault_and_closed_where_they_can_be";
    let Some(machine) = Machine::installed_or_skip(test, &[]) else { return };
    let verified = machine.try_run("systemd-analyze verify bulkhead.service bulkhead.socket");
    // It ends with 0 whatever it finds.
    let said = [verified.stdout, verified.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said), "");
    let unit = machine.property("FragmentPath");
    let score = machine.run(&format!(
        "systemd-analyze security --no-pager --offline=true --threshold={MOST_EXPOSED} {unit}"
    ));
    tests::say(score.lines().last().unwrap_or_default());
}

/// Readiness as systemd sees it, the status, and what holds the workers, `strict` ones too.
#[test]
fn a_start_is_over_when_the_models_serve() {
    let test = "a_start_is_over_when_the_models_serve";
    let slow = Echo::default().parameter("load_delay_ms", "8000");
    let models = [("quick", &Echo::default()), ("slow", &slow)];
    let Some(machine) = Machine::installed_or_skip(test, &models) else { return };
    machine.run("printf '[models.quick]\nconfinement = \"strict\"\n' >>/etc/bulkhead/config.toml");
    machine.run(&format!("systemctl start --no-block {SERVICE}"));
    machine.wait_for("StatusText", "1 of 2 models ready; waits for: slow");
    assert_eq!(machine.property("ActiveState"), "activating");
    machine.wait_for("ActiveState", "active");
    assert_eq!(machine.property("StatusText"), "2 of 2 models ready");
    machine.inside(|| {
        let mut client = Client::new(machine.address());
        client.infer(&Infer::echo("quick")).assert_status(200);
        client.unload("slow").assert_status(200);
    });
    machine.wait_for("StatusText", "1 of 1 models ready");
    assert_workers_are_held(&machine);
}

fn assert_workers_are_held(machine: &Machine) {
    let events = machine.events();
    let of = |message| events.iter().filter(move |event| event["message"] == message);
    for started in of("worker started") {
        assert!(started["limits"].to_string().contains("tree ended by cgroup.kill"), "{started}");
    }
    let missing: Vec<_> = of("confinement: a measure is missing").collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(of("worker confined").count(), 2);
    let group = machine.property("ControlGroup");
    let inside = format!("cat /sys/fs/cgroup{group}/bulkhead.*/*/cgroup.procs");
    let pid = machine.run(&inside).lines().next().expect("there is a worker").to_owned();
    let owner = machine.run(&format!("stat -c %U /proc/{pid} /sys/fs/cgroup{group}"));
    assert_eq!(owner, "bulkhead\nbulkhead\n");
}

#[test]
fn a_main_loop_that_is_stuck_is_noticed_and_the_server_restarted() {
    let test = "a_main_loop_that_is_stuck_is_noticed_and_the_server_restarted";
    let models = [("m", &Echo::default())];
    let Some(machine) = Machine::installed_or_skip(test, &models) else { return };
    machine.drop_in("WatchdogSec=4s\nEnvironment=BULKHEAD_FAULTS=/run/bulkhead");
    machine.run(&format!("systemctl start {SERVICE}"));
    let first = machine.property("MainPID");
    // The fail point is the server's to take away.
    machine.run("install -o bulkhead /dev/null /run/bulkhead/main_loop");
    machine.wait_for("NRestarts", "1");
    machine.wait_for("ActiveState", "active");
    assert_ne!(machine.property("MainPID"), first);
    machine.inside(|| {
        Client::new(machine.address()).infer(&Infer::echo("m")).assert_status(200).status
    });
    let log = machine.run("journalctl --no-pager -o cat");
    assert!(log.contains("Watchdog timeout (limit 4s)!"), "{log}");
    let stuck = |event: &serde_json::Value| event["what"] == "the main loop";
    assert!(machine.events().iter().any(stuck), "{log}");
    // Nothing of the first one is left.
    assert_eq!(machine.run(&format!("ps -o pid= --ppid {first} -p {first} || true")), "");
}

#[test]
fn a_restart_loses_no_request() {
    let test = "a_restart_loses_no_request";
    let models = [("m", &Echo::default())];
    let Some(machine) = Machine::installed_or_skip(test, &models) else { return };
    // The first client starts the service.
    machine.run("systemctl start bulkhead.socket");
    machine.inside(|| {
        Client::new(machine.address()).get("/v2/health/live").assert_status(200);
        machine.wait_for("ActiveState", "active");
        let first = machine.property("MainPID");
        let load = Load::start(machine.address(), "m", 4);
        load.wait_for_more(100);
        machine.run(&format!("systemctl restart {SERVICE}"));
        assert_ne!(machine.property("MainPID"), first);
        load.wait_for_more(100);
        load.assert_no_errors();
    });
    let events = machine.events();
    let ended = events.iter().find(|event| event["message"] == "ended").expect("the first has");
    assert_eq!((&ended["refused"], &ended["broken_off"]), (&0.into(), &0.into()));
}

#[test]
fn who_connects_between_two_servers_waits() {
    let test = "who_connects_between_two_servers_waits";
    let models = [("m", &Echo::default())];
    let Some(machine) = Machine::installed_or_skip(test, &models) else { return };
    machine.run("touch /run/go");
    // A server that can be kept from starting.
    machine.drop_in("ExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.05; done'");
    machine.run("systemctl start bulkhead.socket bulkhead.service");
    machine.run(&format!("rm /run/go; systemctl restart --no-block {SERVICE}"));
    machine.wait_for("ActiveState", "activating");
    machine.inside(|| {
        let waiting: Vec<_> = (0..50).map(|_| waiting_client(&machine)).collect();
        assert_eq!(machine.property("ActiveState"), "activating");
        machine.run("touch /run/go");
        for mut client in waiting {
            client.receive().expect("it is answered").assert_status(200);
        }
    });
}

fn waiting_client(machine: &Machine) -> Client {
    let mut client = Client::new(machine.address());
    let request = b"GET /v2 HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n";
    client.send(request).expect("the socket lets it in");
    client
}

#[test]
fn a_reload_keeps_the_server() {
    let test = "a_reload_keeps_the_server";
    let models = [("m", &Echo::default())];
    let Some(machine) = Machine::installed_or_skip(test, &models) else { return };
    // As README.md has it.
    machine.run("systemctl enable --now bulkhead.socket bulkhead.service");
    machine.run("systemctl is-active bulkhead.socket");
    let pid = machine.property("MainPID");
    let config = "/etc/bulkhead/config.toml";
    machine.run(&format!("printf '[models.m]\\nslots = 7\\n' >>{config}"));
    machine.run(&format!("systemctl reload {SERVICE}"));
    let heard = |message: &str| machine.events().iter().any(|event| event["message"] == message);
    wait::until_true("a word about it", || heard("configuration reloaded"));
    assert!(machine.run("bulkhead config show").contains("models.m.slots = 7\n"));
    // One that is wrong changes nothing, and whoever reloads hears of it.
    machine.run(&format!("sed -i 's/^slots = 7/slots = 0/' {config}"));
    assert!(!machine.try_run(&format!("systemctl reload {SERVICE}")).status.success());
    let log = machine.run("journalctl --no-pager -o cat");
    assert!(log.contains("models.m.slots = 0"), "{log}");
    // The signal is another way, of which systemd is told.
    machine.run(&format!("sed -i 's/^slots = 0/slots = 8/' {config}; kill -HUP {pid}"));
    wait::until_true("the signal to be heard", || {
        machine.run("bulkhead config show").contains("models.m.slots = 8\n")
    });
    machine.wait_for("ActiveState", "active");
    assert_eq!((machine.property("MainPID"), machine.property("NRestarts")), (pid, "0".into()));
    machine.inside(|| {
        Client::new(machine.address()).infer(&Infer::echo("m")).assert_status(200).status
    });
}

/// As behind a load balancer that looks at readiness.
#[test]
fn a_stop_under_load_fails_no_request_and_leaves_nothing() {
    let test = "a_stop_under_load_fails_no_request_and_leaves_nothing";
    let models = [("m", &Echo::default())];
    let Some(machine) = Machine::installed_or_skip(test, &models) else { return };
    // Time for whoever looks at readiness, on a busy machine too.
    machine.run("sed -i 's/^grace = .*/grace = \"8s\"/' /etc/bulkhead/config.toml");
    machine.run(&format!("systemctl start {SERVICE}"));
    let group = machine.property("ControlGroup");
    machine.inside(|| {
        let load = Load::start(machine.address(), "m", 4);
        load.wait_for_more(100);
        machine.run(&format!("systemctl stop --no-block {SERVICE}"));
        wait::until_true("the end of readiness", || {
            Client::new(machine.address()).get("/v2/health/ready").status == 503
        });
        load.assert_no_errors();
    });
    machine.wait_for("ActiveState", "inactive");
    assert_eq!(
        (machine.property("Result"), machine.property("ExecMainStatus")),
        ("success".into(), "0".into())
    );
    machine.run(&format!("! test -e /sys/fs/cgroup{group}; ! pgrep bulkhead"));
    assert_eq!(
        machine.run("ls -A /var/lib/bulkhead/scratch /run/bulkhead 2>/dev/null || true").trim(),
        "/var/lib/bulkhead/scratch:"
    );
}
