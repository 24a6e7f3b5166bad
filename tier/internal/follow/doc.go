// Package follow applies what a feed tells of the writes to an origin, and acknowledges what every member has applied.
//
// A follower has two halves. The reader takes batches and starts their invalidations: when it asks for the next batch, they
// are applied here and are being sent to the members. The other half, confirm, waits until all members have applied
// what was started, and then acknowledges the last position to the feed. So a member that cannot be reached delays the
// acknowledgement, but not the invalidations on the others.
//
// After an error that names members nothing is acknowledged, although the log will tell the members that were not
// reached. If this node, and every other member that has applied the invalidation, ended before that, no member could
// tell them any more. confirm tries again until a wait for everything started so far succeeds, or those members are gone from the
// view; a member that comes back into the view has an exchange first. An isolated node does not acknowledge either:
// after a restart, the followers of the larger part would skip events that only this node knows.
//
// Invariants:
//
//   - A position is acknowledged only after every member has applied everything up to it, and never while the node is
//     isolated.
//   - Whenever events may have been missed, the whole namespace is flushed before the follower goes on.
//   - An event that was applied is not applied again, as long as the feed's numbering stays.
//   - A feed that fails, panics or says nothing new is asked again after a pause that grows up to a bound.
//   - Run returns only when both halves have ended.
package follow
