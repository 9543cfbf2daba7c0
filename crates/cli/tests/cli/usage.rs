//! The command line as a whole.

use crate::Place;
use insta::assert_snapshot;

#[test]
fn a_misspelt_command_is_a_usage_error_with_a_suggestion() {
    assert_snapshot!(Place::new().run(&["confg"]).all(), @"
    exit 2
    err| error: unrecognized subcommand 'confg'
    err|
    err|   tip: a similar subcommand exists: 'config'
    err|
    err| Usage: mainstay [OPTIONS] <COMMAND>
    err|
    err| For more information, try '--help'.
    ");
}

#[test]
fn a_shell_can_be_taught_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Place::new().run(&["completion", shell]);
        assert_eq!(ran.code, 0);
        for command in ["backup", "restore", "verify"] {
            assert!(ran.stdout.contains(command), "{shell} knows nothing of {command}");
        }
    }
}
