//! Which slot was published first of those that have no answer; pure.
//!
//! A list through the slots themselves, so that a slot leaves from anywhere in it at once and
//! nothing grows, however a worker orders its answers.

#[derive(Debug)]
pub(super) struct Order {
    links: Vec<Link>,
    oldest: Option<u16>,
    newest: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    older: Option<u16>,
    newer: Option<u16>,
}

impl Order {
    pub(super) fn new(slots: u16) -> Self {
        Self { links: vec![Link::default(); usize::from(slots)], oldest: None, newest: None }
    }

    pub(super) fn oldest(&self) -> Option<u16> {
        self.oldest
    }

    /// Adds a slot that is not in the list, as the newest.
    pub(super) fn push(&mut self, slot: u16) {
        self.links[usize::from(slot)] = Link { older: self.newest, newer: None };
        match self.newest {
            Some(newest) => self.links[usize::from(newest)].newer = Some(slot),
            None => self.oldest = Some(slot),
        }
        self.newest = Some(slot);
    }

    /// Takes out a slot that is in the list.
    pub(super) fn remove(&mut self, slot: u16) {
        let Link { older, newer } = std::mem::take(&mut self.links[usize::from(slot)]);
        match older {
            Some(older) => self.links[usize::from(older)].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.links[usize::from(newer)].older = older,
            None => self.newest = older,
        }
    }

    pub(super) fn clear(&mut self) {
        self.links.fill(Link::default());
        (self.oldest, self.newest) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue_from_which_anyone_may_leave(slots in prop::collection::vec(0..8_u16, 0..200)) {
            let (mut order, mut expected) = (Order::new(8), Vec::new());
            for slot in slots {
                if let Some(at) = expected.iter().position(|&there| there == slot) {
                    expected.remove(at);
                    order.remove(slot);
                } else {
                    expected.push(slot);
                    order.push(slot);
                }
                prop_assert_eq!(order.oldest(), expected.first().copied());
            }
            while let Some(oldest) = order.oldest() {
                prop_assert_eq!(oldest, expected.remove(0));
                order.remove(oldest);
            }
            prop_assert!(expected.is_empty());
        }
    }
}
