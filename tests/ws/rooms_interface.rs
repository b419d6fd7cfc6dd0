//! What whoever sends to many at once relies on.

use httpy::{
    Config,
    ws::{Policy, Prepared, Refused, Sender},
};
use tokio::sync::mpsc;

use super::{Socket, accepting, close, open};
use crate::support::{run, serve};

/// From any thread, without waiting; and the frame is made once.
#[test]
fn one_frame_goes_to_many_from_another_thread() {
    run(async || {
        let (sender, mut sockets) = mpsc::unbounded_channel();
        let served = serve(accepting(Config::default(), Policy::Drop, async move |socket: Socket| {
            let _ = sender.send(socket.sender.clone());
            let _ = socket.receive().await;
        }));
        let mut clients = Vec::new();
        let mut members: Vec<Sender> = Vec::new();
        for _ in 0..20 {
            clients.push(open(&served).await);
            members.push(sockets.recv().await.expect("a socket"));
        }

        std::thread::spawn({
            let members = members.clone();
            move || {
                let message = Prepared::text("to all");
                assert!(members.iter().all(|member| member.try_send(&message).is_ok()));
            }
        })
        .join()
        .expect("no panic");

        for client in &mut clients {
            assert_eq!(client.next().await, "text to all");
        }
        for (client, member) in clients.iter_mut().zip(&members) {
            client.send(close(1000, "")).await;
            assert_eq!(client.next().await, "close 1000");
            assert_eq!(member.try_send(&Prepared::text("late")), Err(Refused::Closed));
        }
        assert!(members[0] == members[0].clone() && members[0] != members[1]);
    });
}
