//! Programs of the system: loop devices, file systems, mounts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::CrashError;

/// Where programs of the administrator are, which a PATH may lack.
const ADMIN_PATHS: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

fn path_variable() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:{ADMIN_PATHS}")
}

/// Runs a program to its end; answers its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, CrashError> {
    let failed = |said: String| CrashError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        said,
    };
    let ran = Command::new(program)
        .args(arguments)
        .env("PATH", path_variable())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(failed(said.trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

/// Says what is missing for a rig with this file system.
pub(crate) fn check(filesystem: &str) -> Result<(), CrashError> {
    let missing = |what: String| Err(CrashError::Unavailable(what));
    if !rustix::process::geteuid().is_root() {
        return missing("it needs root to mount".into());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return missing(format!("there is no {device}"));
        }
    }
    let make = format!("mkfs.{filesystem}");
    for program in ["losetup", "mount", "umount", &make] {
        let path = path_variable();
        let mut folders = std::env::split_paths(&path);
        if !folders.any(|folder| folder.join(program).is_file()) {
            return missing(format!("there is no program {program}"));
        }
    }
    Ok(())
}

/// Makes a file system in a plain file.
pub(crate) fn make(filesystem: &str, image: &Path) -> Result<(), CrashError> {
    let image = image.to_string_lossy();
    let options: &[&str] = match filesystem {
        "ext4" => &["-q", "-F", "-J", "size=8", "-E", "nodiscard"],
        _ => &["-q", "-f", "-K", "-s", "size=4096"],
    };
    let make = format!("mkfs.{filesystem}");
    run(&make, &[options, &[&image]].concat()).map(drop)
}

/// A mounted loop device; unmounted and detached when dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    pub(crate) fn mount(filesystem: &str, file: &Path, at: &Path) -> Result<Self, CrashError> {
        let file = file.to_string_lossy();
        let device = run("losetup", &["--find", "--show", &file])?;
        let folder = at.to_string_lossy();
        let mounted = run("mount", &["-t", filesystem, &device, &folder]);
        // In use, it is detached with its last user: nothing is left even if this process dies.
        let detached = run("losetup", &["--detach", &device]);
        mounted?;
        let mounted = Self {
            at: at.to_path_buf(),
            is_mounted: true,
        };
        detached?;
        Ok(mounted)
    }

    /// Unmounts; what cannot be written to a dead device does not count.
    pub(crate) fn unmount(mut self) -> Result<(), CrashError> {
        // Not lazily: nothing may be written once the device is revived.
        let unmounted = run("umount", &[&self.at.to_string_lossy()]);
        self.is_mounted = unmounted.is_err();
        unmounted.map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            // Somebody may look into it: it goes when they are done.
            let at = self.at.to_string_lossy();
            run("umount", &["--lazy", &at]).ok();
        }
    }
}
