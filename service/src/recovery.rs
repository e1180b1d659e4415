//! Accepting a store that the daemon refuses: what exactly is to be accepted (the plan), and
//! who said yes to it (approvals).

mod approval;
mod plan;

pub use approval::{Approval, Approver};
pub use plan::Plan;
