//! The life of keys.
//!
//! Creating and rotating survive a crash at any point: first the intent is durable,
//! then the HSM generates, then the record is durable, and only then is it shown to
//! anybody. What is left between two steps is an intent, or an object on the token that
//! belongs to nothing: it is reported at the next start and never deleted by itself.

mod change;
mod change_state;
mod create;
mod destruction;
mod evidence;
mod explain;
pub(super) mod generate;
mod get;
mod last_use;
mod list;
mod pauses;
mod public;
mod retirement;
mod rotate;
mod rules;
mod update;

pub use change_state::{ChangeState, change_state};
pub use create::create_key;
pub use destruction::{
    CancelDestruction, ScheduleDestruction, cancel_destruction, schedule_destruction,
};
pub use evidence::{Evidence, VersionEvidence, get_key_evidence};
pub use explain::{Explain, Explanation, explain};
pub use get::get_key;
pub use last_use::save_last_use;
pub use list::{ListKeys, Page, list_keys};
pub use pauses::Pauses;
pub use public::{Public, get_public_key};
pub use rotate::rotate_key;
pub use rules::keep_rules;
pub use update::{UpdateKey, update_key};
