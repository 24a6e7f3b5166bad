// Package owner answers for the keys that this node owns: it has their entries, their flights and their loads, answers
// the members that ask for them, and hands them to new owners. It does not know the type of the values. A value is bytes
// here, or stays in the run of the loader that brought it.
//
// A read enters by functions that never wait (Handler.TryServe, Owner.LookUp) or by those that may (Handler.Serve,
// Owner.GetOwnedFor), and its value leaves for another member by exit.go alone.
//
// Invariants:
//
//   - A key has at most one live flight, and at most two loads: a live one, and one that was fenced or overran its time.
//   - A load runs only with a permit of the governor, and holds it until the loader has really returned, except while it
//     waits for other keys.
//   - An entry is stored only if no fence that covers it came after its load began. What is derived from an entry is
//     stored only while that entry is still the stored one (Owner.Replace).
//   - A caller that comes after a fence never gets what the fence covers: the fence detaches the flight.
//   - Nothing leaves past its hard expiry, except the result of a load that outlived it, to those who waited for it.
//   - Every goroutine is counted by Owner.Life, and the caller that closes an Owner waits for them: Life.Close, Cancel,
//     Life.Wait, then Owned.Close. No lock is held around a call to a member, the loader or a codec.
//
// A flight:
//
//	state      event                                        next
//	started    the key was filled meanwhile                 done
//	started    the previous owner gives a copy              done
//	started    a place among the key's loads and a permit   loading
//	started    no permit                                    done: a stale copy, or the refusal
//	loading    the loader returns a value                   done: stored if no fence came
//	loading    the loader returns an error                  started, for a retry; or done: a stale copy, or the error
//	loading    Origin.Timeout is over                       done: a stale copy, or ErrTimeout; the load runs on
//	loading    a fence of the key or of a tag comes         detached: later callers start another one
//	detached   as loading                                   as loading, and nothing is stored
//
// The public package gives the errors their types, the values their type and the trace its carrier, through the small
// interfaces of Config. All exported functions are safe for concurrent use after Init, except those of a Run, which
// belongs to its loader.
package owner
