//! Every input that was kept, through its target. A property that no longer holds names the file.

use std::{fs, panic, path::Path};

use fuzz_targets::TARGETS;

#[test]
fn every_kept_input_still_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let mut replayed = 0;
        for entry in
            fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"))
        {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            let replay = panic::catch_unwind(|| target(&input));
            assert!(replay.is_ok(), "{} no longer holds", path.display());
            replayed += 1;
        }
        assert!(replayed > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn every_corpus_has_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpus).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
    }
}
