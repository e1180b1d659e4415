//! The life of keys.
//!
//! Creating and rotating survive a crash at any point: first the intent is durable,
//! then the HSM generates, then the record is durable, and only then is it shown to
//! anybody. What is left between two steps is an intent, or an object on the token that
//! belongs to nothing: it is reported at the next start and never deleted by itself.

mod change_state;
mod create;
mod evidence;
mod generate;
mod get;
mod list;
mod public;
mod rotate;

pub use change_state::{ChangeState, change_state};
pub use create::create_key;
pub use evidence::{Evidence, VersionEvidence, get_key_evidence};
pub use get::get_key;
pub use list::{ListKeys, Page, list_keys};
pub use public::{Public, get_public_key};
pub use rotate::rotate_key;
