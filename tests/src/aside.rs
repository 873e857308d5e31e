//! A request on a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, Infer, Response};
use crate::connections;
use crate::wait;

/// Somebody who has asked, and waits.
#[derive(Debug)]
pub struct Aside {
    thread: JoinHandle<io::Result<Response>>,
    /// Both ends of the connection, once all is sent.
    sent: Receiver<Ends>,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    server: SocketAddr,
    client: SocketAddr,
}

impl Aside {
    pub fn send(client: Client, infer: Infer) -> Self {
        Self::ask(client, move |client| client.send_infer(&infer))
    }

    /// A load, which is answered when it has succeeded or failed.
    pub fn load(client: Client, model: &str) -> Self {
        let path = format!("/v2/repository/models/{model}/load");
        Self::ask(client, move |client| client.send_request("POST", &path, &[], b""))
    }

    /// An unload, which is answered when nothing of the model is left.
    pub fn unload(client: Client, model: &str) -> Self {
        let path = format!("/v2/repository/models/{model}/unload");
        Self::ask(client, move |client| client.send_request("POST", &path, &[], b""))
    }

    fn ask(
        mut client: Client,
        send: impl FnOnce(&mut Client) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (told, sent) = channel();
        let thread = std::thread::spawn(move || {
            send(&mut client)?;
            tell(&client, &told);
            client.receive()
        });
        Self { thread, sent, since: Instant::now() }
    }

    /// Waits until the server has read all of the request, so that it is in the works: what follows it
    /// comes later. At once if it has been answered.
    pub fn wait_until_taken(&self) {
        let mut ends = None;
        wait::until_true("a request that is in the works", || {
            ends = ends.or_else(|| self.sent.try_recv().ok());
            let read = |Ends { server, client }| connections::unread(server, client) == Some(0);
            self.is_finished() || ends.is_some_and(read)
        });
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the answer.
    #[track_caller]
    pub fn answer(self) -> Response {
        self.outcome().expect("the server answers")
    }

    /// Waits for the answer, which must come so soon after the request.
    #[track_caller]
    pub fn answer_within(self, limit: Duration) -> Response {
        let left = limit.saturating_sub(self.since.elapsed());
        wait::within(left, "an answer", || self.is_finished());
        self.answer()
    }

    /// Waits for the answer, or the end of the connection.
    #[track_caller]
    pub fn outcome(self) -> io::Result<Response> {
        self.thread.join().expect("the client does not panic")
    }
}

fn tell(client: &Client, told: &Sender<Ends>) {
    if let Some((server, client)) = client.ends() {
        // Nobody has to ask.
        let _unasked = told.send(Ends { server, client });
    }
}
