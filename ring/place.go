package ring

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

// node is a member as the placement library sees it: its name.
type node string

func (n node) String() string { return string(n) }

// hasher is what the placement library hashes partitions and points with.
type hasher func([]byte) uint64

func (h hasher) Sum64(b []byte) uint64 { return h(b) }

// sum is the ring's hash; tests use worse ones.
func sum(b []byte) uint64 { return xxhash.Sum64(b) }

// A placer holds an instance of the placement library and moves it from one set of members to another. The
// library's New sorts all points again for each member, which takes half a second for a thousand members; one
// Add or Remove takes a few milliseconds. Views that descend from each other through Next share a placer.
type placer struct {
	cfg  Config
	hash hasher

	mu    sync.Mutex             // guards lib and names, held while the library works
	lib   *consistent.Consistent // holds the members in names; nil after a failure
	names []string               // sorted
}

// owners returns the owner of every partition, as an index into names. names is sorted, and the points of the
// names must be distinct.
//
// The result is the same as from a new instance. The library keeps the set of members, the sorted points, and
// the member of each point. Only coinciding points would make the last depend on the order of events. Because
// owners removes members before it adds any, each intermediate set is a subset of a set whose points are
// distinct.
func (p *placer) owners(names []string) (owners []uint16, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			p.lib, p.names, owners, err = nil, nil, nil, noRoom(r)
		}
	}()
	changes := missing(p.names, names, nil) + missing(names, p.names, nil)
	if p.lib == nil || !worthMoving(changes, len(names)) { // an old view may be far behind
		p.lib = p.start(names)
	} else {
		missing(p.names, names, func(name string) { p.lib.Remove(name) })
		missing(names, p.names, func(name string) { p.lib.Add(node(name)) })
	}
	p.names = slices.Clone(names)
	return p.read(p.lib, names)
}

// afresh is owners with a new instance of the library, which p does not keep. It tolerates points that
// coincide: the member with the later name gets such a point.
func (p *placer) afresh(names []string) (owners []uint16, err error) {
	defer func() {
		if r := recover(); r != nil {
			owners, err = nil, noRoom(r)
		}
	}()
	return p.read(p.start(names), names)
}

func (p *placer) start(names []string) *consistent.Consistent {
	nodes := make([]consistent.Member, len(names))
	for i, name := range names {
		nodes[i] = node(name)
	}
	return consistent.New(nodes, consistent.Config{
		Hasher: p.hash, PartitionCount: p.cfg.Partitions, ReplicationFactor: p.cfg.Replicas, Load: p.cfg.Load,
	})
}

func (p *placer) read(lib *consistent.Consistent, names []string) ([]uint16, error) {
	index := make(map[string]uint16, len(names))
	for i, name := range names {
		index[name] = uint16(i)
	}
	owners := make([]uint16, p.cfg.Partitions)
	for part := range owners {
		n, ok := lib.GetPartitionOwner(part).(node)
		i, known := index[string(n)]
		if !ok || !known {
			return nil, fmt.Errorf("%w: partition %d has no owner", ErrConfig, part)
		}
		owners[part] = i
	}
	return owners, nil
}

// noRoom returns the error for a panic of the library. The library panics when its bounds leave no room. With
// a Load of 1 or more that requires members without a point of their own.
func noRoom(r any) error { return fmt.Errorf("%w: %v", ErrConfig, r) }

// missing calls f for each element of from that is absent from in, and returns their number. Both are sorted.
func missing(from, in []string, f func(string)) int {
	count := 0
	for _, name := range from {
		for len(in) > 0 && in[0] < name {
			in = in[1:]
		}
		if len(in) > 0 && in[0] == name {
			continue
		}
		count++
		if f != nil {
			f(name)
		}
	}
	return count
}

// worthMoving reports whether moving a placer by the given number of changes is cheaper than starting a new one.
// Measured in microseconds with 20 points per member, distributing the partitions takes some 500, and sorting
// the points of n members takes n.
func worthMoving(changes, members int) bool {
	return changes*(500+members) < 500+members/2*members
}

// point is one of a member's places on the ring.
type point struct {
	hash   uint64
	member uint16
}

// points returns the points of the names in ring order, and whether all of them are distinct.
func points(names []string, replicas int, hash hasher) (all []point, distinct bool) {
	all = make([]point, 0, len(names)*replicas)
	var key []byte
	for i, name := range names {
		for r := range replicas {
			key = append(append(strconv.AppendInt(key[:0], int64(r), 10), ':'), name...) // as the library does
			all = append(all, point{hash(key), uint16(i)})
		}
	}
	slices.SortFunc(all, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.member, b.member))
	})
	distinct = true
	for i := 1; i < len(all); i++ {
		distinct = distinct && all[i-1].hash != all[i].hash
	}
	return all, distinct
}

// from returns the index in points at which a partition starts to look for its owner.
func (l *layout) from(partition int) int {
	h := l.placer.hash(binary.LittleEndian.AppendUint64(nil, uint64(partition))) // as the library does
	return sort.Search(len(l.points), func(i int) bool { return l.points[i].hash >= h })
}
