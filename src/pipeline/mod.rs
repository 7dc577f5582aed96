//! What keeps stages together: being asked to stop.

mod stop;

pub use stop::{StopFlag, Stopped};
