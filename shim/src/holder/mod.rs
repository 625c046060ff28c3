//! The daemon's side of a holder: starting one, and talking to it.

mod client;
mod error;
mod image;
mod socket;
mod spawn;

pub(crate) use client::{Connected, HolderClient, HolderEvent, connect};
pub(crate) use error::HolderError;
pub(crate) use image::HolderImage;
pub(crate) use spawn::spawn;
