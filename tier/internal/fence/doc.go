// Package fence decides which copies are valid. A copy is valid iff no invalidation that covers it was applied on this
// node after its load started.
//
// The keys are divided into shards. Each shard has a fence clock, which counts the invalidations applied to it. A load, or
// a request to another member, reads the clock when it starts: that is its stamp. An invalidation stores the clock's next value as
// the key's fence and advances the clock last, once the owned copy is gone. A copy is therefore valid iff its key's
// fence is not above its stamp. Commit tests this when a copy is stored, OwnedValid and NearValid each time one is read.
//
// # Marks
//
// A mark names an invalidation by an incarnation and a number. A node learns of it in one of two ways.
//
//   - Logged: the invalidation itself arrived. It is in the log, so an anti-entropy exchange tells every member that lacks it,
//     and a Watermark proves that a member has applied it.
//   - Unlogged: a request for one key, or a token, carried only the mark. No log has it and no exchange tells of it. The node tells
//     each member of it with the request for the key, until the invalidation itself arrives or the retention has passed. Neither
//     an invalidation of the namespace nor a full table makes a node forget an unlogged mark earlier.
//
// When the invalidation arrives after its mark, loads of this node that started in between stay valid: they started after
// the invalidation. Copies from other members do not, because those members may not have known of it. So a fence has two
// stamps, one for this node's loads and one for copies; the second is never lower than the first.
//
// The highest number of an incarnation stands for all lower ones of the key. An invalidation that this node starts itself stands for
// every mark of the key that the node knew. Note returns NoRoom instead of dropping an unlogged mark, and
// the caller then starts such an invalidation.
//
// # Bounds
//
// A fence older than the retention is forgotten: whatever started before it has ended, or Commit rejects it for its age. A full
// shard forgets its oldest fences early and raises its floor: loads below the floor are not stored, and near copies below it are
// revalidated at their owner. An invalidation of the namespace raises every floor. Unlogged marks and the
// versions of forgotten keys have bounds of their own. Tags have a table of fixed size, see TagSet.
//
// All methods are safe for concurrent use.
package fence
