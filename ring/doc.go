// Package ring maps keys to owners.
//
// A [View] is an immutable snapshot of a cluster: its members, and the owner of every partition. A key's
// [Hash] determines its partition. Consistent hashing with bounded loads assigns each partition to a member:
// no member owns more than Config.Load times its even share, rounded up. The placement is that of
// github.com/buraksezer/consistent. A view asks the library for every partition when it is built. After that,
// looking up an owner costs a hash and a few loads.
//
// A view is a pure function of the members' names, [Config] and [Version]: two processes with the same set
// compute the same view, in whatever order members joined, left and restarted. Compare [View.Fingerprint] to
// check that. Addresses and incarnations do not affect the placement.
//
// When an owner is lost, all nodes must turn to the same other member before a new view exists. [View.Heir]
// is exactly the owner that the new view will have. The next member on the ring would be the wrong choice if
// that member is full: see "as walked" below. [View.Successor] is the heir as well, unless the heir is in the
// owner's zone, which may be lost as a whole: then it is a member of another zone. A view builds the tables
// for both once for each lost owner. [View.Prepare] does so ahead of need.
//
// Build views off the hot path: the first with [New], later ones with [View.Next]. Next gives the same result
// as New and only applies the difference to the library's ring, whereas New makes the library sort all points
// again for each member. [View.Diff] reports what changed.
//
// Timings on two cores of an AMD EPYC, in milliseconds, and in nanoseconds for the look-ups (go test -run
// '^$' -bench 'Owner|Successor|New|Next|Prepare' ./ring):
//
//	members   Owner ns   Successor ns   New ms   Next ms   Prepare ms
//	      3       10           16          0.9      0.8        0.6
//	     10       10           17          0.9      0.8        0.9
//	    100       10           17          6        1.2        1.9
//	   1000       10           19        390        4.8        3.2
//
// Next is measured for one member that leaves or joins. The following table shows the percentage of all keys
// that move then. Due is the share of that member, which any placement must move. As walked is the percentage
// of the lost member's partitions that go to the next member on the ring. max/mean is the load of the fullest
// member relative to the mean (go test -run '^$' -bench Move -benchtime 1x ./ring):
//
//	members   join (due)      leave (due)     as walked   max/mean
//	      3   25.7 (24.2)     34.0 (33.3)       100.0       1.25
//	     10    8.5  (8.0)     10.6 (10.0)        98.5       1.25
//	    100    1.50 (0.95)     1.19 (0.96)       92.9       1.27
//	   1000    0.12 (0.09)     0.16 (0.12)       84.4       1.47
//
// These are the defaults: 4093 partitions, load 1.25, 20 points. A load of 1.1 moves 2.36 % on a join to 100
// members and gives a max/mean of 1.12; 1.5 moves 1.08 % and gives 1.52. A hundred points per member move
// 1.21 %, but every build then sorts five times as many points. For a thousand members, four partitions each
// are coarse: raise Config.Partitions on all of them.
package ring
