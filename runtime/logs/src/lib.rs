//! Container logs in the CRI's format: `<time> <stdout|stderr> <F|P> <content>`.
//!
//! The splitter cuts output into lines and knows no files; the writer stamps them
//! and puts them into one, and never fails: what cannot be written is counted.

mod splitter;
mod stamp;
mod writer;

pub use splitter::{LIMIT, Left, Line, Lines, Splitter, Tag};
pub use stamp::Stamp;
pub use writer::{Reopen, Stream, Writer};
