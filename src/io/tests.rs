//! The simulated disk loses what it should, and the real one does what the simulated one does.

use std::path::Path;

use super::*;

const FILE: &str = "/d/file";

fn disk_with(bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.create(Path::new(FILE)).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    (disk, file)
}

#[test]
fn synced_bytes_survive_and_unsynced_sectors_survive_one_by_one() {
    let (disk, file) = disk_with(&[1; 2048]);
    file.write_at(512, &[2; 1024]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let after = disk.crash(seed);
        let bytes = read_small(&after, Path::new(FILE), 4096).unwrap().unwrap();
        assert_eq!((bytes[0], bytes[511], bytes[1536]), (1, 1, 1));
        assert!(bytes.chunks(512).all(|c| c.iter().all(|b| *b == c[0])));
        seen.insert((bytes[512], bytes[1024]));
    }
    assert_eq!(seen.len(), 4, "every combination of two sectors: {seen:?}");
    file.sync_data().unwrap();
    let bytes = read_small(&disk.crash(1), Path::new(FILE), 4096).unwrap();
    assert_eq!(bytes.map(|b| (b[512], b[1024])), Some((2, 2)));
}

#[test]
fn names_survive_once_their_folder_is_synced() {
    let (disk, _) = disk_with(b"x");
    disk.rename(Path::new(FILE), Path::new("/d/new")).unwrap();
    let lost = (0..32).any(|seed| disk.crash(seed).paths() == [Path::new(FILE)]);
    assert!(lost, "an unsynced rename was never lost");
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(disk.crash(3).paths(), [Path::new("/d/new")]);
}

#[test]
fn faults_hit_the_operation_they_were_meant_for() {
    let (disk, file) = disk_with(&[1; 8]);
    disk.fail_write(2, SimFault::Full);
    disk.fail_sync(1, SimFault::Device);
    file.write_at(0, &[2; 8]).unwrap();
    assert!(file.write_at(0, &[3; 8]).unwrap_err().is_full());
    file.write_at(0, &[4; 8]).unwrap();
    assert!(!file.sync_data().unwrap_err().is_full());
    file.sync_data().unwrap();
}

#[test]
fn sticky_faults_stay_until_the_disk_heals() {
    let (disk, file) = disk_with(&[1; 8]);
    let dir = Path::new("/d");
    for operation in [
        SimOperation::Write,
        SimOperation::Sync,
        SimOperation::SyncDir,
        SimOperation::Create,
        SimOperation::Rename,
        SimOperation::SetLen,
    ] {
        disk.fail(operation, 2, SimFault::Device, SimTimes::Sticky);
        let attempt = || match operation {
            SimOperation::Write => file.write_at(0, &[2; 8]),
            SimOperation::Sync => file.sync_data(),
            SimOperation::SyncDir => disk.sync_dir(dir),
            SimOperation::Create => disk.create(&dir.join("new")).map(drop),
            SimOperation::Rename => disk.rename(Path::new(FILE), Path::new(FILE)),
            SimOperation::SetLen => file.set_len(8),
        };
        let outcomes = [attempt(), attempt(), attempt()].map(|outcome| outcome.is_ok());
        assert_eq!(outcomes, [true, false, false], "{operation:?}");
        disk.heal();
        attempt().unwrap();
    }
    assert_eq!(disk.failures().len(), 12);
    assert!(disk.used_after_failed_sync() > 0);
}

#[test]
fn what_a_failed_or_lying_sync_left_is_kept_only_when_it_is_written_again() {
    for lies in [false, true] {
        let (disk, file) = disk_with(&[1; 1024]);
        file.write_at(0, &[2; 1024]).unwrap();
        if lies {
            disk.lie_sync(1, SimTimes::Once);
            file.sync_data().unwrap();
        } else {
            disk.fail_sync(1, SimFault::Device);
            file.sync_data().unwrap_err();
        }
        file.sync_data().unwrap();
        let first_bytes = |seed| {
            let bytes = read_small(&disk.crash(seed), Path::new(FILE), 1024);
            let bytes = bytes.unwrap().unwrap();
            (bytes[0], bytes[512])
        };
        let seen: std::collections::BTreeSet<_> = (0..64).map(first_bytes).collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!(
            read_small(&disk, Path::new(FILE), 1).unwrap(),
            Some(vec![2])
        );
        file.write_at(0, &[2; 512]).unwrap();
        file.sync_data().unwrap();
        let seen: std::collections::BTreeSet<_> = (0..64).map(first_bytes).collect();
        assert_eq!(Vec::from_iter(seen), [(2, 1), (2, 2)]);
    }
}

#[test]
fn a_misdirected_write_or_read_meets_another_place_once() {
    for seed in 0..32 {
        let (disk, file) = disk_with(&[1; 4096]);
        let other = disk.create(Path::new("/d/other")).unwrap();
        other.write_at(0, &[2; 4096]).unwrap();
        disk.misdirect_write(1, seed);
        file.write_at(512, &[3; 512]).unwrap();
        let astray = disk.astray().unwrap();
        assert_ne!(
            (astray.hit.as_path(), astray.hit_position),
            (Path::new(FILE), 512)
        );
        let threes: [usize; 2] = [&file, &other].map(|file| {
            let mut bytes = [0; 4096];
            file.read_at(0, &mut bytes).unwrap();
            bytes.into_iter().map(|byte| usize::from(byte == 3)).sum()
        });
        assert_eq!(threes.iter().sum::<usize>(), 512, "{astray:?}");
        disk.misdirect_read(1, seed);
        let mut bytes = [0; 8];
        assert_eq!(other.read_at(1024, &mut bytes).unwrap(), 8);
        assert_eq!(disk.astray().unwrap().meant, Path::new("/d/other"));
    }
}

/// What both disks have to agree on.
fn behaves(disk: &dyn Disk, dir: &Path) {
    disk.create_dir_all(dir).unwrap();
    let path = dir.join("a");
    assert!(disk.open(&path).unwrap_err().is_not_found());
    assert_eq!(read_small(disk, &path, 10).unwrap(), None);
    replace_small(disk, &path, b"hello").unwrap();
    assert_eq!(read_small(disk, &path, 4).unwrap(), Some(b"hell".to_vec()));
    let file = disk.open(&path).unwrap();
    file.write_at(8, b"far").unwrap();
    assert_eq!(file.len_bytes().unwrap(), 11);
    let mut buffer = [9; 16];
    assert_eq!(file.read_at(3, &mut buffer).unwrap(), 8);
    assert_eq!(&buffer[..8], b"lo\0\0\0far");
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(
        read_small(disk, &path, 9).unwrap(),
        Some(b"he\0\0".to_vec())
    );
    assert_eq!(file.read_at(100, &mut buffer).unwrap(), 0);
    let lock = disk.lock(&dir.join("LOCK")).unwrap();
    assert!(lock.is_some());
    assert!(disk.lock(&dir.join("LOCK")).unwrap().is_none());
    drop(lock);
    assert!(disk.lock(&dir.join("LOCK")).unwrap().is_some());
    disk.rename(&path, &dir.join("b")).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["LOCK", "b"]);
    disk.remove(&dir.join("b")).unwrap();
    assert!(disk.remove(&dir.join("b")).unwrap_err().is_not_found());
    assert!(disk.free_bytes(dir).unwrap() > 0);
    assert!(disk.list(&dir.join("none")).unwrap_err().is_not_found());
}

#[test]
fn the_real_disk_and_the_simulated_one_behave_alike() {
    let dir = tempfile::tempdir().unwrap();
    behaves(&RealDisk, dir.path());
    behaves(&SimDisk::new(), Path::new("/simulated"));
}

#[test]
fn the_file_system_is_that_of_the_innermost_mount() {
    let mounts = "\
22 1 8:1 / / rw shared:1 - ext4 /dev/vda rw
30 22 0:27 / /tmp rw - tmpfs tmpfs rw
31 22 0:28 / /mnt/a\\040b rw - nfs4 server:/x rw
";
    let of = |path| environment::file_system_in(mounts, Path::new(path));
    assert_eq!(of("/var/lib"), Some("ext4".to_owned()));
    assert_eq!(of("/tmp/data"), Some("tmpfs".to_owned()));
    assert_eq!(of("/tmpfile"), Some("ext4".to_owned()));
    assert_eq!(of("/mnt/a b/data"), Some("nfs4".to_owned()));
}

/// Appends of all sizes and phases, on one disk; what was before stays, what is behind may be zeros.
fn append_like_a_journal(disk: &dyn Disk, dir: &Path, seed: u64) {
    let path = dir.join("appended");
    let mut random = fastrand::Rng::with_seed(seed);
    let file = disk.create(&path).unwrap();
    // A file that had a life before.
    file.write_at(0, &vec![0xee; 2 << 20]).unwrap();
    let mut file = disk.open_direct(&path).unwrap();
    let mut model = Vec::new();
    while model.len() < 1 << 20 {
        let bytes = match random.u8(0..4) {
            0 => random.usize(1..200),
            1 => random.usize(1..3) * BLOCK_BYTES,
            2 => random.usize(1..20_000),
            _ => random.usize(60_000..300_000),
        };
        let position = model.len() as u64;
        let mut memory = vec![random.u8(1..); bytes + BLOCK_BYTES];
        let skip = if random.bool() {
            skip_to_phase(memory.as_ptr(), position)
        } else {
            random.usize(0..BLOCK_BYTES)
        };
        memory[skip] = 0xab;
        let group = &memory[skip..skip + bytes];
        file.append_at(position, group).unwrap();
        model.extend_from_slice(group);
        if random.u8(0..8) == 0 {
            file.sync_data().unwrap();
            file = disk.open_direct(&path).unwrap();
        }
        let from = random.usize(0..model.len());
        let mut read = vec![0; random.usize(1..400_000)];
        let got = file.read_at(from as u64, &mut read).unwrap();
        let known = got.min(model.len() - from);
        assert!(read[..known] == model[from..from + known], "seed {seed}");
    }
    let plain = disk.open(&path).unwrap();
    let mut all = vec![0; model.len()];
    assert_eq!(plain.read_at(0, &mut all).unwrap(), model.len());
    assert!(all == model, "seed {seed}: the page cache says otherwise");
    let mut behind = vec![0; 3 * BLOCK_BYTES];
    let got = plain.read_at(model.len() as u64, &mut behind).unwrap();
    let block = model.len().next_multiple_of(BLOCK_BYTES) - model.len();
    let later = &behind[..got][block.min(got)..];
    assert!(
        later.iter().all(|byte| *byte == 0xee),
        "seed {seed}: more than a block was touched"
    );
}

#[test]
fn appends_past_the_page_cache_are_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..8 {
        append_like_a_journal(&RealDisk, dir.path(), seed);
        let sim = SimDisk::new();
        sim.create_dir_all(Path::new("/d")).unwrap();
        append_like_a_journal(&sim, Path::new("/d"), seed);
    }
}
