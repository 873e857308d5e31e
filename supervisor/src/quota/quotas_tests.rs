use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use shared::id::{ModelName, ModelVersion};
use tokio::time::timeout;

use super::*;
use crate::device::{Device, DeviceId, Memory, Processes, Reading, Slice, Used};
use crate::quota::Wanted;

const GIB: u64 = 1 << 30;
/// Long enough on any machine.
const WATCHDOG: Duration = Duration::from_secs(20);

/// One device of 10 GiB, and whoever is on it.
struct Machine {
    snapshots: watch::Sender<Arc<Snapshot>>,
    quotas: Quotas,
    hurried: Arc<AtomicU32>,
    _folder: tempfile::TempDir,
}

/// Even numbers live and are what they say; odd ones are gone.
fn kin(number: u32, wanted: &dyn Fn(i32) -> bool) -> Kinship {
    let pid = i32::try_from(number).unwrap();
    match (number.is_multiple_of(2), wanted(pid)) {
        (true, true) => Kinship::Of(pid),
        (true, false) => Kinship::Stranger,
        (false, _) => Kinship::Gone,
    }
}

impl Machine {
    fn new(patience: Duration) -> Self {
        let (sender, snapshots) = watch::channel(Arc::new(Snapshot::absent("not yet")));
        let (hurried, folder) = (Arc::new(AtomicU32::new(0)), tempfile::tempdir().unwrap());
        let count = Arc::clone(&hurried);
        let hurry = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let capacity = Capacity { arenas: 1000, workers: 10, headroom: 0, patience };
        let file = folder.path().join("measured.json");
        let quotas = Quotas::start(capacity, file, Sources { snapshots, hurry, kin });
        Self { snapshots: sender, quotas, hurried, _folder: folder }
    }

    fn show(&self, processes: &[(u32, u64)]) {
        let told: BTreeMap<u32, Used> =
            processes.iter().map(|&(number, bytes)| (number, Used::Bytes(bytes))).collect();
        let used = processes.iter().map(|(_, bytes)| bytes).sum();
        let id = DeviceId::new("GPU-0").unwrap();
        let reading = Reading {
            device: Device { id, index: 0, name: "fake".into(), slice: Slice::Whole },
            state: State::Usable,
            memory: Some(Memory { total: 10 * GIB, used }),
            busy: None,
            processes: Processes::Seen(told),
        };
        let driver = Driver::Answers("1".into());
        let taken = MonotonicNanos::now();
        self.snapshots.send_replace(Arc::new(Snapshot { taken, driver, readings: vec![reading] }));
    }

    async fn granted(&self, bytes: u64) -> Grant {
        // The task may not have seen the device yet.
        timeout(WATCHDOG, async {
            loop {
                match self.quotas.reserve_on(0, &ask(bytes)).await {
                    Ok(grant) => return grant,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
        .expect("a grant")
    }
}

fn ask(limit: u64) -> DeviceAsk {
    let (model, version) = (ModelName::new("m").unwrap(), ModelVersion::new(1).unwrap());
    DeviceAsk { wanted: Wanted::Any(1), model, version, engine: "echo".into(), limit }
}

async fn until(looks: &mut watch::Receiver<Sample>, seen: &DeviceUse) {
    let found = timeout(WATCHDOG, looks.wait_for(|sample| sample.seen == *seen)).await;
    found.expect("a look").expect("the tenant is there");
}

#[tokio::test]
async fn a_worker_is_looked_at_and_what_it_had_is_waited_for() {
    let machine = Machine::new(WATCHDOG);
    machine.show(&[]);
    let grant = machine.granted(10 * GIB).await;
    let mut looks = grant.occupy(42);
    machine.show(&[(42, 3 * GIB), (44, GIB)]);
    until(&mut looks, &DeviceUse::Bytes(3 * GIB)).await;
    let mut left = grant.leave();
    assert_eq!(machine.hurried.load(Ordering::Relaxed), 1);
    // Another one waits for it.
    let (quotas, asked) = (machine.quotas.clone(), ask(10 * GIB));
    let next = tokio::spawn(async move { quotas.reserve_on(0, &asked).await.map(drop) });
    assert!(left.try_recv().is_err());
    machine.show(&[]);
    assert_eq!(timeout(WATCHDOG, left).await.unwrap(), Ok(Left::Free));
    assert_eq!(timeout(WATCHDOG, next).await.unwrap().unwrap(), Ok(()));
}

#[tokio::test]
async fn who_stays_is_overdue_and_nobody_waits_for_ever() {
    let machine = Machine::new(Duration::from_millis(200));
    machine.show(&[]);
    let grant = machine.granted(10 * GIB).await;
    let _looks = grant.occupy(42);
    let left = grant.leave();
    // It was never seen alive; somebody is there whom the kernel has let go of, and the driver not.
    machine.show(&[(43, GIB)]);
    assert_eq!(timeout(WATCHDOG, left).await.unwrap(), Ok(Left::Overdue));
    let refused = machine.quotas.reserve_on(0, &ask(GIB)).await.unwrap_err();
    assert!(refused.reason.contains("suspect"), "{refused:?}");
}

#[tokio::test]
async fn a_grant_that_is_dropped_is_there_again_at_once() {
    let machine = Machine::new(WATCHDOG);
    machine.show(&[]);
    drop(machine.granted(10 * GIB).await);
    drop(machine.granted(10 * GIB).await);
    let plain = machine.quotas.reserve(1000).unwrap();
    assert_eq!(machine.quotas.reserve(1).unwrap_err().outlook, Outlook::Bleak);
    assert_eq!(timeout(WATCHDOG, plain.leave()).await.unwrap(), Ok(Left::Free));
    assert!(machine.quotas.reserve(1000).is_ok());
}

#[tokio::test]
async fn what_was_measured_is_granted_until_it_is_refuted() {
    let machine = Machine::new(WATCHDOG);
    machine.show(&[]);
    let asked = ask(8 * GIB);
    let subject = Subject::new(&asked.model, asked.version, "fake");
    machine.quotas.note_peak(subject.clone(), "echo", "echo 1", GIB);
    let grant = machine.granted(8 * GIB).await;
    assert!(grant.place().is_some_and(|place| place.bytes < 2 * GIB));
    drop(grant);
    machine.quotas.refute_peak(&subject);
    assert_eq!(machine.granted(8 * GIB).await.place().map(|place| place.bytes), Some(8 * GIB));
}
