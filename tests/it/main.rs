//! The whole house: the real proxy on free ports, in front of a provider that does as it is told.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, and most of what is here are helpers of tests")]

mod admission;
mod anthropic;
mod authority;
mod bad_days;
mod bedrock;
mod binary;
mod bodies;
mod cohere;
mod crash;
mod database;
mod dialects;
mod endings;
mod fake;
mod fallover;
mod floors;
mod gemini;
mod governed;
mod house;
mod media;
mod money;
mod odd;
mod prices;
mod raw;
mod refusals;
mod resilience;
mod rules;
mod sdk;
mod streams;
mod surface;
mod through;
