//! Against the system's own `sshd` on loopback, as the user who runs the tests, with keys made for the test.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use kato_shared::settings::HumanDuration;

use super::*;

/// An sshd of the test's own, and an `ssh_config` that knows it as `node`.
struct Server {
    folder: tempfile::TempDir,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the test starts the real programs")]
fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[expect(clippy::disallowed_methods, reason = "files of the test in its own folder")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

impl Server {
    /// Starts it on a free port and waits until it answers. Root needs the folder that Debian's sshd insists on.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for key in ["host", "user"] {
            let made = program("/usr/bin/ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(key))
                .status()
                .unwrap();
            assert!(made.success());
        }
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = program("/usr/sbin/sshd")
            .args([
                "-D",
                "-e",
                "-f",
                "/dev/null",
                "-o",
                "UsePAM=no",
                "-o",
                "StrictModes=no",
                "-o",
                "PidFile=none",
            ])
            .args([
                "-o",
                &format!("ListenAddress=127.0.0.1:{port}"),
                "-o",
                "PermitRootLogin=yes",
            ])
            .args(["-o", &format!("AuthorizedKeysFile={}", at("user.pub").display())])
            .arg("-h")
            .arg(at("host"))
            .spawn()
            .unwrap();
        let host_key = std::fs::read_to_string(at("host.pub")).unwrap();
        write(&at("known_hosts"), &format!("[127.0.0.1]:{port} {host_key}"));
        write(
            &at("config"),
            &format!(
                "Host node\n HostName 127.0.0.1\n Port {port}\n IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n \
                 UserKnownHostsFile {}\n",
                at("user").display(),
                at("known_hosts").display()
            ),
        );
        let server = Self { folder, process };
        Self::wait(port);
        server
    }

    fn wait(port: u16) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(tokio::time::Instant::now() < deadline, "sshd does not answer");
            std::thread::yield_now();
        }
    }

    fn host(&self) -> SshHost {
        let settings = SshSettings {
            user: String::new(),
            sudo: false,
            config: Some(self.folder.path().join("config")),
            connect_timeout: HumanDuration::from_secs(5),
            ..SshSettings::default()
        };
        let options = SshOptions {
            settings,
            asking: None,
            program: "/usr/bin/ssh".into(),
        };
        SshHost::new("w1", "node", options).unwrap()
    }
}

fn command(argv: &[&str]) -> RemoteCommand {
    RemoteCommand {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: Vec::new(),
        deadline: Some(Duration::from_secs(30)),
        input: None,
    }
}

#[tokio::test]
async fn arguments_environment_output_and_exit_code_go_through_unchanged() {
    let server = Server::start();
    let host = server.host();
    let mut asked = command(&[
        "sh",
        "-c",
        "printf '%s|' \"$@\" \"$GIVEN\"; exit 21",
        "x",
        "it's",
        "$HOME",
        "a\nb",
        "",
    ]);
    asked.env.push(("GIVEN".into(), "two words; `id`".into()));
    let output = host.run(&asked).await.unwrap();
    assert_eq!(output.ended, Ended::Exit(21));
    assert_eq!(output.stdout, "it's|$HOME|a\nb||two words; `id`|");
    // 127 is an answer, not a broken connection.
    let output = host.run(&command(&["/nonexistent/kato"])).await.unwrap();
    assert_eq!(output.ended, Ended::Exit(127));
    host.close().await;
    assert!(!host.socket().exists());
}

#[tokio::test]
async fn a_signal_and_a_lost_connection_are_two_things() {
    let server = Server::start();
    let host = server.host();
    let output = host.run(&command(&["sh", "-c", "kill -9 $$"])).await.unwrap();
    assert_eq!(output.ended, Ended::Signal(9));
    // The far end of the connection goes away while the command runs.
    let error = host
        .run(&command(&[
            "sh",
            "-c",
            "kill -9 $(ps -o ppid= -p $PPID); exec sleep 30",
        ]))
        .await
        .unwrap_err();
    assert!(matches!(error, HostError::Lost { .. }), "{error:?}");
    // The next command connects anew.
    assert!(host.run(&command(&["true"])).await.unwrap().ended.is_success());
    host.close().await;
}

#[tokio::test]
async fn a_dead_master_is_a_lost_connection_and_not_a_second_one() {
    let server = Server::start();
    let host = server.host();
    assert!(host.run(&command(&["true"])).await.unwrap().ended.is_success());
    host.forget().await;
    // A socket that nobody listens on any more, as a killed master leaves it.
    drop(std::os::unix::net::UnixListener::bind(host.socket()).unwrap());
    let error = host.run(&command(&["true"])).await.unwrap_err();
    assert!(matches!(error, HostError::Lost { .. }), "{error:?}");
    assert!(host.run(&command(&["true"])).await.unwrap().ended.is_success());
    host.close().await;
}

#[tokio::test]
async fn c20_an_unknown_host_key_fails_at_once_with_the_words_of_ssh() {
    let server = Server::start();
    write(&server.folder.path().join("known_hosts"), "");
    let error = server.host().run(&command(&["true"])).await.unwrap_err();
    let HostError::Unreachable { detail, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(detail.contains("Host key verification failed"), "{detail}");
}

#[tokio::test]
async fn lines_arrive_while_the_command_runs() {
    let server = Server::start();
    let host = server.host();
    let (send, mut receive) = mpsc::channel(4);
    let mut asked = command(&["sh", "-c", "echo first; sleep 60"]);
    asked.deadline = None;
    let follow = host.lines(&asked, send);
    tokio::select! {
        ended = follow => panic!("{ended:?}"),
        line = receive.recv() => assert_eq!(line.as_deref(), Some("first")),
    }
    host.close().await;
}
