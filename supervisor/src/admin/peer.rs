//! Who is at the other end, and whether they may be.

use std::os::fd::AsFd as _;

use nix::unistd::{Group, geteuid};
use shared::sys::peer::groups;
use tokio::net::UnixStream;

/// A process that has connected, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: Option<i32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let told = stream.peer_cred()?;
        Ok(Self { uid: told.uid(), gid: told.gid(), pid: told.pid() })
    }
}

/// Who may: root, the server's own user, and the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    own: u32,
    group: Option<u32>,
}

impl Rights {
    /// With the group of this name; `None` if there is no such group.
    #[must_use]
    pub fn with_group(name: Option<&str>) -> Option<Self> {
        let group = match name {
            None => None,
            Some(name) => Some(Group::from_name(name).ok().flatten()?.gid.as_raw()),
        };
        Some(Self { own: geteuid().as_raw(), group })
    }

    #[must_use]
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    pub(super) fn admit(self, peer: Peer, stream: &UnixStream) -> bool {
        // Asked only where it matters; a peer whose groups are unknown is in none.
        self.allow(peer, || groups(stream.as_fd()).unwrap_or_default())
    }

    fn allow(self, peer: Peer, others: impl FnOnce() -> Vec<u32>) -> bool {
        let member = |group| peer.gid == group || others().contains(&group);
        peer.uid == 0 || peer.uid == self.own || self.group.is_some_and(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_the_group_may() {
        let rights = Rights { own: 7, group: Some(50) };
        let alone = Rights { own: 7, group: None };
        let peer = |uid, gid| Peer { uid, gid, pid: None };
        for (uid, gid, others, in_group) in [
            (0, 0, vec![], true),
            (7, 7, vec![], true),
            (8, 50, vec![], true),
            (8, 8, vec![9, 50], true),
            (8, 8, vec![9], false),
            (u32::MAX, u32::MAX, vec![], false),
        ] {
            assert_eq!(rights.allow(peer(uid, gid), || others), in_group, "{uid} {gid}");
            assert_eq!(alone.allow(peer(uid, gid), || vec![50]), uid == 0 || uid == 7, "{uid}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_is_told() {
        assert!(Rights::with_group(Some("no such group, surely")).is_none());
        assert_eq!(Rights::with_group(None).and_then(|rights| rights.group()), None);
    }
}
