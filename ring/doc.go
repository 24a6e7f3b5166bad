// Package ring says who owns a key.
//
// A [View] is an immutable snapshot of a cluster: its members, and the owner of every partition. A
// key belongs to a partition by its [Hash], a partition to a member by consistent hashing with
// bounded loads: no member owns more than Config.Load times its even share, rounded up. The
// placement is that of github.com/buraksezer/consistent, which is asked for every partition when a
// view is built; from then on an owner costs a hash and a few loads.
//
// A view is a pure function of the members' names, [Config] and [Version]: whoever has the same set
// computes the same view, in whatever order members came, left and restarted. Compare
// [View.Fingerprint] to know it. Addresses and incarnations place nothing.
//
// When an owner is lost, all nodes must turn to the same other member before any new view is there.
// [View.Heir] is the owner that the new view will have, exactly. The next member on the ring would
// be wrong where that one is full: see "as walked" below. [View.Successor] is the heir too, unless
// that one is in the owner's zone, which may be lost as a whole: then it is one in another. The
// tables for them are made once for each lost owner; [View.Prepare] does so ahead of need.
//
// Build views off the hot path: the first with [New], the others with [View.Next], which gives the
// same result and moves the library's ring by what changed. New has the library sort all points
// again for each member. [View.Diff] says what is different.
//
// Milliseconds, and nanoseconds for the look-ups, on two cores of an AMD EPYC (go test -run '^$'
// -bench 'Owner|Successor|New|Next|Prepare' ./ring):
//
//	members   Owner ns   Successor ns   New ms   Next ms   Prepare ms
//	      3       10           16          0.9      0.8        0.6
//	     10       10           17          0.9      0.8        0.9
//	    100       10           17          6        1.2        1.9
//	   1000       10           19        390        4.8        3.2
//
// Next is for one member that leaves or joins. What moves then, in percent of all keys, and what
// was due, that is the share of that member, which no placement can avoid; as walked, in percent of
// the lost member's partitions, is how many go to the next member on the ring; max/mean is the load
// of the fullest member (go test -run '^$' -bench Move -benchtime 1x ./ring):
//
//	members   join (due)      leave (due)     as walked   max/mean
//	      3   25.7 (24.2)     34.0 (33.3)       100.0       1.25
//	     10    8.5  (8.0)     10.6 (10.0)        98.5       1.25
//	    100    1.50 (0.95)     1.19 (0.96)       92.9       1.27
//	   1000    0.12 (0.09)     0.16 (0.12)       84.4       1.47
//
// These are the defaults: 4093 partitions, load 1.25, 20 points. A load of 1.1 moves 2.36 % on a
// join to 100 members and leaves 1.12 as max/mean; 1.5 moves 1.08 % and leaves 1.52. A hundred
// points move 1.21 % there, at five times the points for every build to sort. For a thousand
// members four partitions each are coarse: raise Config.Partitions, on all of them.
package ring
