//! Other settings for a model, while its task runs.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::waiter::{Ending, Waiter};
use super::{Keeper, Set};
use crate::config::{Enabled, ModelSettings};
use crate::health::PoisonPolicy;
use crate::lifecycle::reload::deed::{Deed, Place, Presence, There};
use crate::lifecycle::reload::plan::Wish;
use crate::lifecycle::version::Settled;
use crate::repository::Scanner;
use crate::route::AnsweredWhen;

/// What a reload asks of a model's task.
#[derive(Debug)]
pub(in crate::lifecycle) struct Reconfigure {
    pub(in crate::lifecycle) settings: ModelSettings,
    pub(in crate::lifecycle) scanner: Scanner,
    pub(in crate::lifecycle) wish: Wish,
    /// The model's folder, if it was found and could be read.
    pub(in crate::lifecycle) home: Option<PathBuf>,
    pub(in crate::lifecycle) begun: oneshot::Sender<Begun>,
    /// Told, or dropped, when a model that is to be forgotten has been, or is not to be any more.
    pub(in crate::lifecycle) forgotten: oneshot::Sender<()>,
}

/// What is under way.
#[derive(Debug)]
pub(in crate::lifecycle) struct Begun {
    pub(in crate::lifecycle) work: Work,
    /// `None` if it is done.
    pub(in crate::lifecycle) done: Option<oneshot::Receiver<Ending>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Work {
    Nothing,
    Adjusted,
    Kept,
    /// Old workers serve until the new ones do.
    Replacing,
    Loading,
    Disabling,
    Forgetting,
}

/// Whether the model is in no repository any more.
#[derive(Debug)]
pub(super) enum Farewell {
    No,
    /// It is on its way out; then this is told.
    Going(oneshot::Sender<()>),
    /// Nothing is published of it any more.
    Gone,
}

impl Keeper {
    pub(super) async fn reconfigure(&mut self, order: Reconfigure) {
        let Reconfigure { settings, scanner, wish, home, begun, forgotten } = order;
        let deed = Deed::about(wish, self.there(&settings, home.as_ref()));
        let before = std::mem::replace(&mut self.settings, settings);
        self.scanner = scanner;
        // Taken back: what serves is what is wished for again.
        if matches!(deed, Deed::Nothing | Deed::Adopt) && before.effect_of(&self.settings).is_some()
        {
            self.rejected = None;
        }
        let poison = self.settings.worker.poison;
        for watchlist in self.watchlists.values() {
            watchlist.set_policy(PoisonPolicy { after: poison.after, ttl: poison.ttl });
        }
        if deed != Deed::Forget {
            self.leaves = Farewell::No;
        }
        if (before.enabled, self.settings.enabled) == (Enabled::No, Enabled::Yes) {
            self.show_problem(None);
        }
        let told = match deed {
            Deed::Nothing => self.load_under_way(),
            Deed::Keep => at_once(Work::Kept),
            Deed::Adopt => {
                self.adopt();
                match self.load_under_way() {
                    Begun { work: Work::Nothing, .. } => at_once(Work::Adjusted),
                    under_way => under_way,
                }
            }
            Deed::Renew | Deed::Load => {
                // What takes no new workers does not wait for them.
                self.adopt();
                self.load_anew().await
            }
            Deed::Disable => self.disable(before.enabled).await,
            Deed::Forget => self.forget(forgotten).await,
        };
        // Whoever asked may have gone.
        let _gone = begun.send(told);
    }

    fn there(&self, wished: &ModelSettings, home: Option<&PathBuf>) -> There {
        let newest = self.incoming.as_ref().or(self.current.as_ref());
        let failed = self.problem.is_some() && !self.dismissed;
        let waits = self.incoming.is_none() && self.loading.is_empty() && !self.again.is_empty();
        let (state, settings, last) = match newest {
            // It will be made of these.
            _ if waits => (Presence::Loaded, &self.settings, self.home.as_ref()),
            Some(set) if set.was_denied() && set.settled() == Settled::Failed && !set.serves() => {
                (Presence::Denied, &set.settings, Some(&set.folder.path))
            }
            Some(set) => (Presence::Loaded, &set.settings, Some(&set.folder.path)),
            None if failed && self.settings.enabled == Enabled::Yes => {
                (Presence::Failed, &self.settings, self.home.as_ref())
            }
            None => (Presence::Unloaded, &self.settings, None),
        };
        let moved = home.is_some() && home != last;
        There {
            state,
            change: settings.effect_of(wished),
            place: if moved { Place::Moved } else { Place::Same },
        }
    }

    /// For the workers that are there.
    fn adopt(&mut self) {
        for set in self.current.iter_mut().chain(&mut self.incoming) {
            set.settings.adopt_live(&self.settings);
            for version in set.versions.values_mut() {
                version.adopt(&self.settings);
            }
        }
    }

    /// Loads anew. A load that is under way has other settings: this one takes its place, also for
    /// clients who wait for it, once what that had is free. If there is nothing to load, it goes on.
    async fn load_anew(&mut self) -> Begun {
        let (done, outcome) = oneshot::channel();
        let serves = self.current.as_ref().is_some_and(Set::serves);
        let work = if serves { Work::Replacing } else { Work::Loading };
        let begun = Begun { work, done: Some(outcome) };
        match self.scanner.look_at(&self.name).await {
            Ok(folder) => self.home = Some(folder.path),
            Err(error) if self.is_loading() => {
                let _ours = done.send(Ending::Failed(error.reason()));
                return begun;
            }
            // As any load that fails.
            Err(_) => {}
        }
        self.renewal = None;
        let mut waiting = Waiter::overtake(&mut self.loading);
        waiting.append(&mut Waiter::overtake(&mut self.again));
        waiting.push(Waiter::Reload(done));
        self.again = waiting;
        if let Some(set) = self.incoming.take() {
            self.make_way(set).await;
        }
        if !serves && let Some(set) = self.current.take() {
            self.make_way(set).await;
        }
        begun
    }

    /// Nothing is to be done beyond a load that is under way already.
    fn load_under_way(&mut self) -> Begun {
        if !self.is_loading() {
            return at_once(Work::Nothing);
        }
        let (done, outcome) = oneshot::channel();
        self.join(Waiter::Reload(done));
        let serves = self.current.as_ref().is_some_and(Set::serves);
        let work = if serves { Work::Replacing } else { Work::Loading };
        Begun { work, done: Some(outcome) }
    }

    async fn disable(&mut self, before: Enabled) -> Begun {
        let is_there = self.current.is_some() || self.is_loading() || !self.retiring.is_empty();
        if !is_there && before == Enabled::No {
            self.show_problem(Some(super::DISABLED));
            return at_once(Work::Nothing);
        }
        let begun = self.let_go(Work::Disabling).await;
        self.show_problem(Some(super::DISABLED));
        begun
    }

    async fn forget(&mut self, forgotten: oneshot::Sender<()>) -> Begun {
        self.leaves = Farewell::Going(forgotten);
        self.let_go(Work::Forgetting).await
    }

    async fn let_go(&mut self, work: Work) -> Begun {
        let (done, outcome) = oneshot::channel();
        self.loading = Waiter::overtake(&mut self.loading);
        self.again = Waiter::overtake(&mut self.again);
        self.unload(Waiter::Reload(done), AnsweredWhen::Gone).await;
        self.unloaded.clear();
        Begun { work, done: Some(outcome) }
    }

    /// Takes down what is shown of a model that is to be forgotten, once nothing is left of it.
    pub(super) fn take_leave(&mut self) {
        if !matches!(self.leaves, Farewell::Going(_)) || !self.retiring.is_empty() {
            return;
        }
        if let Farewell::Going(forgotten) = std::mem::replace(&mut self.leaves, Farewell::Gone) {
            self.routes.remove(&self.name);
            self.kit.board.take_down(&self.name);
            self.kit.archive.keep(&self.name, |_| false);
            self.routes.stats().keep(&self.name, |_| false);
            self.kit.journals.forget(&self.name);
            let _gone = forgotten.send(());
        }
    }

    fn show_problem(&mut self, problem: Option<&str>) {
        self.problem = problem.map(str::to_owned);
        self.publish_with(|entry| entry.problem = problem.map(str::to_owned));
    }
}

fn at_once(work: Work) -> Begun {
    Begun { work, done: None }
}
