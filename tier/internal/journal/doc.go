// Package journal carries invalidations between the members. It numbers those that its cache starts, applies and logs all that
// reach it, delivers them, and compares with every other member what each has applied.
//
// Each cache has a random incarnation and numbers the invalidations that it starts. Every member keeps the
// invalidations that it has applied, its own and others', in a log. For each incarnation it keeps a track: the number
// up to which it has applied all of them, and the few numbers that it has applied beyond. Two members that compare
// their positions know what each lacks and take it from the other's log: an anti-entropy exchange. A flush makes good
// what no log holds any more: a member that lacks such an invalidation treats its whole cache as invalidated.
//
// # The rule
//
// A read that begins on a member after that member has applied an invalidation never returns a value that the
// invalidation covers and whose load began before the invalidation was started. Why it holds:
//
//   - A near copy, an entry of the owned tier, a value that a flight brings: the fence decides, because the copy's
//     stamp was taken before its load, or the request for it, began (package fence).
//   - A value from another member: that member must have applied the invalidation before it looked for the value. So
//     this journal keeps a [Watermark] for each other member: the fence clocks at a moment before an exchange in which the member
//     took everything that was here at that moment. What the member must be told beyond the watermark is its debt
//     (package fence). One mark travels with the request. [Journal.Ready] has an exchange first if there are more marks, if one can no
//     longer be told, or if one is of the whole namespace. If one is of a tag, the answer, which names its tags, is not
//     used; an exchange follows, and the request is repeated. A watermark holds for one incarnation: an answer of another
//     incarnation is not used either.
//   - A mark that arrived with a request or a token is in no log, so a watermark proves nothing about it. This node sends
//     it with each request for its key until the invalidation itself arrives here or the retention has passed. Until then
//     the rule covers it; afterwards the rule covers the reads that bring the mark again.
//
// So it does not matter how an invalidation arrived: directly, by relay, with a request, by replay or by flush. It
// raises the clocks, and from then on this node takes nothing from a member before that member has the invalidation as
// well. In particular, before a replay no data crosses from one side of a healed partition to the other, nor, on either
// side, from members that have not heard of the invalidation to members that have.
//
// [Journal.Wait] returns nil when all members of the view have applied the invalidation. A member that is not in this
// node's view may be in the view of a member that has applied it: that member names it and relays the invalidation to
// it. A member that no other knows, or that has only just started, might still take a copy from a member that has not
// applied the invalidation, at a time when it should have been told itself. So two kinds of answers are neither kept in
// the near tier nor given to later callers: answers to a member that is not in the answerer's view, and answers to a
// new cache until it has had an exchange with every member ([Journal.IsOpening]).
//
// # Bounds
//
// Memory is bounded: the log by bytes and by age, the tracks by count, the numbers beyond a gap by count. The track
// notes what the log had to drop early (cut); a member that lacks it has to flush. What was applied longer ago than any
// member's copies live (lives) no longer matters to any member. Positions of caches that have gone are retired before
// there are too many (retire.go).
//
// The age of an invalidation counts from when the first members applied it. A member that passes one on also says how
// long the invalidation's incarnation has been idle, so all members forget it at about the same time. If each member
// counted from when it heard of the invalidation itself, a late member would tell it to members that had forgotten it,
// they would tell the next one, and it would circulate forever and cost fills.
//
// # The protocol
//
// The states of a member and the events that change them are a table in member.go; the decision what to do next is a
// pure function of the state and the time (state.next in pump.go). What a member has confirmed is a set of numbers that
// cannot skip one (confirmed.go). [Journal.Tick] does what no event triggers.
package journal
