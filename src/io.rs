//! draft
use std::path::PathBuf;
/// draft
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct IoError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: std::io::Error,
}
