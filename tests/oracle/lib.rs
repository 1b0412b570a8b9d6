//! Nothing: a package takes a library or a program. The test is in `shipped.rs`.
