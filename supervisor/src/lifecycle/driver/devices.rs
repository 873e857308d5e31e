//! The part of a driver's work that is about devices: asking for them, giving them back, and what was
//! seen of its worker there.

use super::Driver;
use crate::exit_kind::ExitKind;
use crate::health::{Advice, Reason};
use crate::lifecycle::reservation::{Asking, Reservation};
use crate::lifecycle::tenancy::{Looked, Tenancy};
use crate::lifecycle::{Event, ExitRecord, Ticket, events_log, seating};
use crate::quota::{Grant, Refused};

impl Driver {
    pub(super) fn reserve(&mut self, ticket: Ticket) {
        let arena = self.spec.geometry.total_bytes() as u64;
        let wanted = self.spec.seating.wanted(self.kit.quotas.has_device());
        let Some(wanted) = wanted else {
            let reserved = self.kit.quotas.reserve(arena);
            let event = self.note_reserved(ticket, reserved);
            self.pending.push_back(event);
            return;
        };
        let ask = seating::ask(&self.spec.id, &self.spec.load.engine, wanted, &self.spec.gpu);
        let asking = Asking::start(ticket, self.kit.quotas.clone(), arena, ask);
        self.reservation = Reservation::Asked(asking);
    }

    pub(super) async fn reserved(&mut self, outcome: Result<Grant, Refused>) {
        let Reservation::Asked(Asking { ticket, .. }) = self.reservation else { return };
        self.reservation = Reservation::None;
        let event = self.note_reserved(ticket, outcome);
        self.handle(event).await;
    }

    fn note_reserved(&mut self, ticket: Ticket, outcome: Result<Grant, Refused>) -> Event {
        match outcome {
            Err(Refused { reason, .. }) => Event::Denied { ticket, reason },
            Ok(grant) => {
                self.reservation = Reservation::Granted(grant);
                Event::Granted { ticket }
            }
        }
    }

    /// The exit of whatever ran under the grant has been seen.
    pub(super) fn release(&mut self) {
        if let Reservation::Granted(grant) = std::mem::take(&mut self.reservation) {
            if self.worker.is_none() {
                // There was no process.
                return drop(grant);
            }
            let left = grant.leave();
            self.leaving.spawn(async move { drop(left.await) });
        }
    }

    /// What was seen of the worker on its devices.
    pub(super) async fn judge_devices(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        let generation = worker.generation();
        let Some(tenancy) = &mut worker.tenancy else { return };
        let Looked { advice, peak } = tenancy.look();
        let subject = seating::subject(&self.spec.id, tenancy.place());
        if let (Some(peak), Some(subject), Some(loaded)) = (peak, subject, &self.loaded) {
            let engine = &self.spec.load.engine;
            self.kit.quotas.note_peak(subject, engine, &loaded.build, peak);
        }
        self.tell_enforcement();
        let Some(worker) = &mut self.worker else { return };
        let why = match advice {
            Advice::Steady => return,
            Advice::Trim => return worker.trim(),
            Advice::Squeeze => {
                worker.squeeze(Some(self.spec.batch_cap.squeeze()));
                events_log::squeezed(&self.spec.id, self.spec.batch_cap.reduced());
                return worker.trim();
            }
            Advice::Relax => {
                worker.squeeze(None);
                return events_log::relaxed(&self.spec.id);
            }
            Advice::Over { used, quota } => Reason::DeviceMemory { used, quota },
            Advice::Lost(why) => Reason::DeviceLost(why),
        };
        self.handle(Event::Unhealthy { generation, why }).await;
    }

    pub(super) fn trimmed(&mut self) -> Result<(), String> {
        let tenancy = self.worker.as_mut().and_then(|worker| worker.tenancy.as_mut());
        tenancy.map_or_else(|| Err("it has no device".into()), Tenancy::trimmed)
    }

    /// What keeps the worker within its quota is said once it has loaded, and when it changes.
    pub(super) fn tell_enforcement(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        let generation = worker.generation();
        if let Some(view) = worker.tenancy.as_mut().and_then(Tenancy::news) {
            events_log::on_devices(&self.spec.id, generation, &view);
        }
    }

    /// A model that needed more than it was granted may have had less than it is allowed.
    pub(super) fn refute_peak(&self, exit: &ExitRecord) {
        let tenancy = self.worker.as_ref().and_then(|worker| worker.tenancy.as_ref());
        let subject = tenancy.and_then(|t| seating::subject(&self.spec.id, t.place()));
        if let (Some(subject), ExitKind::DeviceOom | ExitKind::Quota) = (subject, exit.kind) {
            self.kit.quotas.refute_peak(&subject);
        }
    }
}

/// Waits for a look at a worker on devices.
pub(super) async fn looked(tenancy: &mut Option<Tenancy>) {
    if let Some(tenancy) = tenancy
        && tenancy.changed().await
    {
        return;
    }
    std::future::pending().await
}
