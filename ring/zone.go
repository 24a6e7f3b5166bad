package ring

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// zones returns the members' zones, nil if none has one.
func zones(members []Member) []string {
	if !slices.ContainsFunc(members, func(m Member) bool { return m.Zone != "" }) {
		return nil
	}
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.Zone
	}
	return out
}

// again returns the same placement without zones and with empty tables of successors.
func (l *layout) again() *layout {
	return &layout{
		names: l.names, owners: l.owners, counts: l.counts, placed: l.placed, fingerprint: l.placed,
		points: l.points, distinct: l.distinct, placer: l.placer, without: make([]lost, len(l.names)),
	}
}

// zone adopts the zones of the members, which are those of l. The fingerprint changes only if there is a
// zone. l must be new and not yet shared.
func (l *layout) zone(members []Member) {
	l.zones = zones(members)
	if l.zones == nil {
		return
	}
	h := xxhash.New()
	_, _ = h.Write(binary.BigEndian.AppendUint64([]byte("weir zones "), l.placed)) // never fails
	for _, zone := range l.zones {
		_, _ = h.Write([]byte{byte(len(zone))}) // never fails
		_, _ = h.WriteString(zone)              // never fails
	}
	l.fingerprint = h.Sum64()
}

// apart reports whether a member is known to be in another zone than the owner.
func (l *layout) apart(owner, member int) bool {
	return l.zones != nil && l.zones[owner] != "" && l.zones[member] != "" && l.zones[owner] != l.zones[member]
}

// alone reports whether no member is known to be in another zone than the owner.
func (l *layout) alone(owner int) bool {
	for member := range l.zones {
		if l.apart(owner, member) {
			return false
		}
	}
	return true
}

// succeeding returns the successors for the partitions of an owner: those in heirs, except that a partition
// whose heir is not in another zone gets the next member on the ring that is. If zones change nothing, it
// returns heirs itself.
func (l *layout) succeeding(owner int, heirs []uint16) []uint16 {
	if l.alone(owner) {
		return heirs
	}
	out := slices.Clone(heirs)
	for p, o := range l.owners {
		if int(o) != owner || l.apart(owner, int(heirs[p])) {
			continue
		}
		at := l.from(p)
		for i := range l.points {
			if m := l.points[(at+i)%len(l.points)].member; l.apart(owner, int(m)) {
				out[p] = m
				break
			}
		}
	}
	return out
}
