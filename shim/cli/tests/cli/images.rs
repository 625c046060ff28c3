//! Images over the plain CRI.

use crate::harness::Harness;

#[test]
fn images_are_listed_pulled_and_removed() {
    let harness = Harness::new();
    assert!(
        harness
            .carpel(&["images"])
            .stderr()
            .contains("there are no images")
    );
    let told = harness.carpel(&["pull", "reg.local/a:1"]).succeed();
    assert!(told.starts_with("image reg.local/a:1 is sha256:"), "{told}");
    let table = harness.carpel(&["images"]).succeed();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["reg.local/a", "1", "0000000000000", "1B"]);
    let wide = harness.carpel(&["get", "images", "-o", "wide"]).succeed();
    assert!(wide.contains("PINNED"), "{wide}");
    assert_eq!(
        harness.carpel(&["rmi", "reg.local/a:1"]).succeed(),
        "image reg.local/a:1 removed\n"
    );
    let told = harness.carpel(&["rmi", "reg.local/a:1"]).fail(1);
    assert!(
        told.contains("image \"reg.local/a:1\" is not there"),
        "{told}"
    );
    harness
        .carpel(&["rmi", "reg.local/a:1", "--ignore-not-found"])
        .succeed();
}

#[test]
fn removing_goes_on_after_one_that_is_not_there() {
    let harness = Harness::new();
    harness.fake.add_image("a:1");
    let done = harness.carpel(&["rmi", "none:1", "a:1"]);
    assert_eq!(
        String::from_utf8_lossy(&done.0.stdout),
        "image a:1 removed\n"
    );
    done.fail(1);
}
