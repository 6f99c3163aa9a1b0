//! Assignment of users to partitions, and of partitions to members. Pure, and the same on every
//! machine forever: the keys are part of the format, since events and mailboxes lie under a
//! partition's number.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use bellhop_protocol::token::UserId;
use bellhop_protocol::wire::member::MemberRecord;

pub use bellhop_protocol::partition::Partition;

/// The partition of a user among `count` partitions.
pub fn of_user(user: &UserId, count: u16) -> Partition {
    of_hash(hash_of_user(user), count)
}

/// Returns the hash of a user from which the partition follows.
pub fn hash_of_user(user: &UserId) -> u64 {
    hash(&[user.as_str().as_bytes()])
}

/// Returns the partition among `count` of the user with this hash.
pub fn of_hash(user: u64, count: u16) -> Partition {
    Partition((user % u64::from(count)) as u16)
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    for part in parts {
        hasher.write(part);
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// Something that exactly one member works at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads the published sets.
    Intake,
    /// Announces reminders that stay parked.
    Escalation,
    /// Writes outcomes into the database.
    History,
    /// Works one partition's users.
    Partition(Partition),
}

impl Role {
    /// Those of which an installation has one.
    pub const SINGLE: [Self; 3] = [Self::Intake, Self::Escalation, Self::History];

    /// All roles of an installation with so many partitions.
    pub fn all(partitions: u16) -> impl Iterator<Item = Self> {
        Self::SINGLE
            .into_iter()
            .chain((0..partitions).map(|number| Self::Partition(Partition(number))))
    }

    /// Returns the kind of the role, in a word.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Escalation => "escalation",
            Self::History => "history",
            Self::Partition(_) => "partition",
        }
    }

    /// Returns whether a member says that it holds the role.
    pub fn is_held_by(self, member: &MemberRecord) -> bool {
        match self {
            Self::Intake => member.intake,
            Self::Escalation => member.escalation,
            Self::History => member.history,
            Self::Partition(Partition(number)) => member.partitions.contains(&number),
        }
    }

    /// The partition, if it is one.
    pub fn partition(self) -> Option<Partition> {
        match self {
            Self::Partition(partition) => Some(partition),
            Self::Intake | Self::Escalation | Self::History => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition() {
            Some(partition) => partition.fmt(f),
            None => f.write_str(self.kind()),
        }
    }
}

/// Shares the roles out: rendezvous hashing with a bound, so that no member has more than its fair
/// share (rounded up) and a member that comes or goes moves few roles. Every member computes the
/// same from the same list.
pub fn assign(members: &[String], partitions: u16) -> BTreeMap<Role, String> {
    let mut assignment = BTreeMap::new();
    if members.is_empty() {
        return assignment;
    }
    let share = usize::from(partitions).div_ceil(members.len());
    let mut load: BTreeMap<&String, usize> = members.iter().map(|member| (member, 0)).collect();
    let by_weight = |role: Role| {
        let name = role.to_string();
        let mut ranked: Vec<&String> = members.iter().collect();
        ranked.sort_by_key(|member| {
            std::cmp::Reverse((hash(&[name.as_bytes(), member.as_bytes()]), *member))
        });
        ranked
    };
    for role in Role::SINGLE {
        assignment.insert(role, by_weight(role)[0].clone());
    }
    for number in 0..partitions {
        let role = Role::Partition(Partition(number));
        if let Some(member) = by_weight(role)
            .into_iter()
            .find(|member| load[member] < share)
        {
            *load.entry(member).or_default() += 1;
            assignment.insert(role, member.clone());
        }
    }
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("member-{i}")).collect()
    }

    #[test]
    fn the_hash_is_a_format_and_never_changes() {
        let of = |user: &str| of_user(&user.parse().unwrap(), 32).0;
        assert_eq!([of("alice"), of("bob"), of("张三")], [0, 17, 28]);
    }

    #[test]
    fn partitions_are_shared_fairly_and_completely() {
        for n in 1..9 {
            let assignment = assign(&members(n), 32);
            assert_eq!(assignment.len(), 35);
            for member in members(n) {
                let held = assignment
                    .iter()
                    .filter(|(role, m)| matches!(role, Role::Partition(_)) && **m == member)
                    .count();
                assert!(held <= 32usize.div_ceil(n), "{member} of {n} holds {held}");
            }
        }
        assert!(assign(&[], 32).is_empty());
    }

    #[test]
    fn leaving_member_moves_few_other_partitions() {
        let before = assign(&members(4), 64);
        let after = assign(&members(3), 64);
        let moved = before
            .iter()
            .filter(|(role, m)| **m != "member-3" && after[role] != **m)
            .count();
        assert!(
            moved <= 16,
            "{moved} partitions moved between members that stayed"
        );
    }
}
