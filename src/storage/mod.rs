//! Files: watched for changes, replaced in one step, kept as lines or as one snapshot.

pub mod atomic_file;
pub mod file_watch;
pub mod line_file;
pub mod snapshot_file;
