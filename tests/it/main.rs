//! The whole house: the real proxy on free ports, in front of a provider that does as it is told.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, and most of what is here are helpers of tests")]

mod admission;
mod authority;
mod binary;
mod bodies;
mod crash;
mod database;
mod dialects;
mod endings;
mod fake;
mod fallover;
mod floors;
mod governed;
mod house;
mod money;
mod odd;
mod raw;
mod refusals;
mod rules;
mod sdk;
mod streams;
mod surface;
mod through;
