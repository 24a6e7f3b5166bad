package ring

import (
	"encoding/binary"
	"slices"
	"sort"
	"strconv"
)

// Prepare makes the table that Successor needs when the named member is lost, so that
// the first caller does not wait for it: it takes as long as New does. Safe for concurrent use.
func (v *View) Prepare(name string) {
	if i := v.Index(name); i >= 0 && len(v.members) > 1 {
		v.lose(i)
	}
}

// lose returns the owners of the view without one of its members.
func (v *View) lose(member int) []uint16 {
	l := &v.without[member]
	l.once.Do(func() {
		owners, err := place(v.members, member, v.cfg)
		if err != nil { // the whole view had room, so this one has; the owners stand in
			owners = v.owners
		}
		l.owners = owners
	})
	return l.owners
}

// Successor returns the member that a key goes to if its owner is lost: its owner in the
// view without the owner. false: there is no other member. The first call for each owner
// takes as long as New does, see Prepare.
func (v *View) Successor(key string) (Member, bool) {
	if len(v.members) < 2 {
		return Member{}, false
	}
	p := v.Partition(key)
	owner := v.owners[p]
	next := v.lose(int(owner))[p]
	if next == owner {
		return Member{}, false
	}
	return v.members[next], true
}

// Successors returns the first n distinct members after the owner: the Successor, then
// the others in the order of the ring from the key's partition. There are fewer if
// the view has not that many.
func (v *View) Successors(key string, n int) []Member {
	first, ok := v.Successor(key)
	if !ok || n <= 0 {
		return nil
	}
	out := []Member{first}
	seen := map[string]bool{v.Owner(key).Name: true, first.Name: true}
	points := v.ring()
	h := hasher{}.Sum64(partitionKey(v.Partition(key)))
	at := sort.Search(len(points), func(i int) bool { return points[i].hash >= h })
	for i := 0; i < len(points) && len(out) < n; i++ {
		m := v.members[points[(at+i)%len(points)].member]
		if !seen[m.Name] {
			seen[m.Name] = true
			out = append(out, m)
		}
	}
	return out
}

// Diff is what changed from one view to another.
type Diff struct {
	Joined    []Member // not in the old view
	Left      []Member // not in the new view, as the old one has them
	Restarted []Member // in both with another incarnation or address, as the new one has them
	Moved     []Move   // partitions with another owner
}

// Move is one partition's change of owner.
type Move struct {
	Partition int
	From, To  string // names
}

// Diff returns what changed from old to v. Where the numbers of partitions differ every
// partition of v counts as moved.
func (v *View) Diff(old *View) Diff {
	var d Diff
	for _, m := range v.members {
		if o, ok := old.Member(m.Name); !ok {
			d.Joined = append(d.Joined, m)
		} else if o != m {
			d.Restarted = append(d.Restarted, m)
		}
	}
	for _, m := range old.members {
		if v.Index(m.Name) < 0 {
			d.Left = append(d.Left, m)
		}
	}
	same := len(v.owners) == len(old.owners)
	for p := range v.owners {
		to, from := v.OwnerOf(p).Name, ""
		if same {
			from = old.OwnerOf(p).Name
		}
		if from != to {
			d.Moved = append(d.Moved, Move{Partition: p, From: from, To: to})
		}
	}
	return d
}

func comparePoints(a, b point) int {
	switch {
	case a.hash < b.hash:
		return -1
	case a.hash > b.hash:
		return 1
	}
	return int(a.member) - int(b.member)
}

// ring returns the members' points in the order of their hashes.
func (v *View) ring() []point {
	points := make([]point, 0, len(v.members)*v.cfg.Replicas)
	for i, m := range v.members {
		for r := range v.cfg.Replicas {
			points = append(points, point{hasher{}.Sum64(replicaKey(m.Name, r)), uint16(i)})
		}
	}
	slices.SortFunc(points, comparePoints)
	return points
}

// partitionKey and replicaKey are how the placement library names partitions and points.
func partitionKey(p int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(p)) }

func replicaKey(name string, r int) []byte {
	return append(append(strconv.AppendInt(nil, int64(r), 10), ':'), name...)
}
