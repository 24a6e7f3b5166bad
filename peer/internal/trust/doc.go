// Package trust is the means by which a node recognizes the members of its cluster: keys that encrypt gossip, and TLS
// with certificates on both sides for data connections and gossip streams.
//
// A Trust is made once, from the node's secrets, from the user's own TLS configuration, or from both:
//
//	made from      packets of gossip     streams of gossip            data connections
//	nothing        plaintext             plaintext                    plaintext
//	secrets        encrypted             TLS, certificates made here  TLS, certificates made here
//	secrets, TLS   encrypted             TLS, certificates made here  TLS, the user's certificates
//	TLS            plaintext             plaintext                    TLS, the user's certificates
//
// What holds:
//
//   - Every node derives the same keys and the same certificate authority from a secret. Each key has a purpose of
//     its own, and no derived key reveals the secret or another key. Secrets are not kept and not compared: a peer
//     that lacks a secret cannot produce what it opens.
//   - The first secret encrypts and signs. All secrets decrypt and are trusted, so that a secret can be changed in
//     rolling restarts.
//   - A node issues its own certificate, which names its cluster and its member. It is valid for a day, from an hour
//     before its creation, because clocks differ, and is replaced at half of that age. It is never stored.
//   - Connections are TLS 1.3, both sides present certificates, and no session is resumed, so that each connection is
//     judged by current certificates. A user's TLS configuration cannot weaken that.
//   - A certificate vouches for one member: Names compares it with the name that the member claims, and for certificates
//     made here with the cluster as well. A user's certificate names the member's host.
//
// A stranger can begin a handshake and gets no further. Deadlines and the number of handshakes are up to the code that
// accepts the connection, which closes it as well. The package imports no other package of weir.
package trust
