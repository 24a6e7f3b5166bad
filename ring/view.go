package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Version is the ring version: the rules that place keys. Members with different versions place keys
// differently and must not share a ring.
const Version = 1

const (
	// DefaultPartitions is the default of Config.Partitions: a prime, some forty partitions for each of a
	// hundred members.
	DefaultPartitions = 4093
	// DefaultLoad is the default of Config.Load. Lower loads spread keys more evenly, and move more of them
	// when the members change.
	DefaultLoad = 1.25
	// DefaultReplicas is the default of Config.Replicas.
	DefaultReplicas = 20
	// MaxName is the longest member name, in bytes.
	MaxName = 128
	// MaxZone is the longest name of a zone, in bytes.
	MaxZone = 64

	maxPartitions = math.MaxUint16 // members are numbered in 16 bits and may not outnumber the partitions
	maxReplicas   = 1000
	maxLoad       = 100
)

var (
	// ErrNoMembers says that a view needs at least one member.
	ErrNoMembers = errors.New("ring: no members")
	// ErrDuplicateMember says that two members have the same name.
	ErrDuplicateMember = errors.New("ring: duplicate member")
	// ErrTooManyMembers says that there are more members than partitions.
	ErrTooManyMembers = errors.New("ring: too many members")
	// ErrConfig says that a configuration or a member's name is invalid.
	ErrConfig = errors.New("ring: bad configuration")
)

// Member is one process of the cluster.
type Member struct {
	Name        string // stable across restarts: only the name determines which keys it owns
	Addr        string // host:port
	Incarnation uint64 // identifies this start of the process
	Zone        string // failure domain, such as a rack or a data centre; empty: unknown. At most MaxZone bytes
	// Resting: the member is in the view but owns nothing. If all members rest, the flag has no effect.
	Resting bool
}

// Config configures how keys are placed. It must be the same on every member. A zero field selects its
// default.
type Config struct {
	Partitions int     // how many, at most 65535; 0: DefaultPartitions
	Load       float64 // no member owns more than Load times its even share, rounded up; from 1 to 100; 0: DefaultLoad
	Replicas   int     // points that each member has on the ring, at most 1000; 0: DefaultReplicas
}

func (c Config) withDefaults() Config {
	if c.Partitions == 0 {
		c.Partitions = DefaultPartitions
	}
	if c.Load == 0 {
		c.Load = DefaultLoad
	}
	if c.Replicas == 0 {
		c.Replicas = DefaultReplicas
	}
	return c
}

// check finds every problem at once.
func (c Config) check() error {
	var problems []string
	if c.Partitions < 1 || c.Partitions > maxPartitions {
		problems = append(problems, fmt.Sprintf("Partitions is %d: it must be from 1 to %d", c.Partitions, maxPartitions))
	}
	if !(c.Load >= 1 && c.Load <= maxLoad) { // rejects NaN as well
		problems = append(problems, fmt.Sprintf("Load is %v: it must be from 1 to %d", c.Load, maxLoad))
	}
	if c.Replicas < 1 || c.Replicas > maxReplicas {
		problems = append(problems, fmt.Sprintf("Replicas is %d: it must be from 1 to %d", c.Replicas, maxReplicas))
	}
	if problems == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrConfig, strings.Join(problems, "; "))
}

// A View is an immutable snapshot: the members, and the owner of every partition. It is a pure function of
// the members, Version and Config. Only the names of members that do not rest place keys; their zones only
// choose successors. All methods are safe for concurrent use. All except Next, Prepare and the first
// Successor or Heir after the loss of an owner read the View without a lock. No method may be called on a nil
// View.
type View struct {
	members []Member // sorted by name
	active  []Member // those that do not rest; all members if all rest
	seats   []int    // indexes in members of the active ones, nil: none rests
	rest    uint64   // hash of the names of those that rest, 0: none
	*layout
}

// layout is what follows from the active members' names and zones, and the configuration. Views whose active
// members have the same names and zones share one.
type layout struct {
	names       []string // sorted: indexes into it are indexes into View.active
	zones       []string // by active member; nil: none has one
	owners      []uint16 // of partitions
	counts      []int    // partitions owned, by member
	placed      uint64   // fingerprint without the zones
	fingerprint uint64
	points      []point // in ring order
	distinct    bool    // whether all points are distinct
	without     []lost  // by member
	placer      *placer
}

// Hash is the ring's hash of a key: XXH64 without a seed, the same on every member.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// New builds the view of members, in whatever order they come, and copies them. It takes a millisecond for a
// few members, six for a hundred and half a second for a thousand: call it off the hot path, and prefer Next
// if a view exists already. The errors wrap ErrNoMembers, ErrDuplicateMember, ErrTooManyMembers or ErrConfig.
func New(members []Member, cfg Config) (*View, error) {
	return build(members, cfg.withDefaults(), sum)
}

func build(members []Member, cfg Config, hash hasher) (*View, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	v, names, err := seated(members, cfg)
	if err != nil {
		return nil, err
	}
	if v.layout, err = lay(names, &placer{cfg: cfg, hash: hash}); err != nil {
		return nil, err
	}
	v.zone(v.active)
	return v, nil
}

// Next returns the same view of members as New does with v's Config. It is faster if there are many members
// and few of them are new or gone: a few milliseconds for each change among a thousand. It takes next to no
// time if only addresses, incarnations and zones changed. The errors are those of New. v stays valid in any
// case.
func (v *View) Next(members []Member) (*View, error) {
	cfg := v.placer.cfg
	next, names, err := seated(members, cfg)
	if err != nil {
		return nil, err
	}
	if slices.Equal(names, v.names) {
		if next.layout = v.layout; !slices.Equal(zones(next.active), v.zones) {
			next.layout = v.again()
			next.zone(next.active)
		}
		return next, nil
	}
	p := v.placer
	if changes := missing(names, v.names, nil) + missing(v.names, names, nil); !v.distinct || !worthMoving(changes, len(names)) {
		p = &placer{cfg: cfg, hash: p.hash}
	}
	if next.layout, err = lay(names, p); err != nil {
		return nil, err
	}
	next.zone(next.active)
	return next, nil
}

// seated checks the members. It returns a view of them without its layout, and the names of the active ones.
func seated(members []Member, cfg Config) (*View, []string, error) {
	if len(members) == 0 {
		return nil, nil, ErrNoMembers
	}
	if len(members) > cfg.Partitions {
		return nil, nil, fmt.Errorf("%w: %d members and %d partitions: raise Partitions on all of them", ErrTooManyMembers, len(members), cfg.Partitions)
	}
	members = slices.Clip(slices.Clone(members))
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	v := &View{members: members, active: members}
	for i, m := range members {
		if m.Name == "" || len(m.Name) > MaxName {
			return nil, nil, fmt.Errorf("%w: a member's name has %d bytes: it must have from 1 to %d", ErrConfig, len(m.Name), MaxName)
		}
		if i > 0 && m.Name == members[i-1].Name {
			return nil, nil, fmt.Errorf("%w: %q", ErrDuplicateMember, m.Name)
		}
		if len(m.Zone) > MaxZone {
			return nil, nil, fmt.Errorf("%w: the zone of %q has %d bytes: it must have at most %d", ErrConfig, m.Name, len(m.Zone), MaxZone)
		}
	}
	rests := func(m Member) bool { return m.Resting }
	if slices.ContainsFunc(members, rests) && slices.ContainsFunc(members, func(m Member) bool { return !m.Resting }) {
		v.active = slices.DeleteFunc(slices.Clone(members), rests)
		h := xxhash.New()
		for i, m := range members {
			if m.Resting {
				fmt.Fprintf(h, "%d %s", len(m.Name), m.Name)
			} else {
				v.seats = append(v.seats, i)
			}
		}
		v.rest = h.Sum64()
	}
	names := make([]string, len(v.active))
	for i, m := range v.active {
		names[i] = m.Name
	}
	return v, names, nil
}

// lay builds the layout: it places every partition.
func lay(names []string, p *placer) (*layout, error) {
	l := &layout{names: names, placer: p, counts: make([]int, len(names)), without: make([]lost, len(names))}
	l.points, l.distinct = points(names, p.cfg.Replicas, p.hash)
	owners, place := []uint16(nil), p.owners
	if !l.distinct {
		l.placer = &placer{cfg: p.cfg, hash: p.hash}
		place = l.placer.afresh
	}
	owners, err := place(names)
	if err != nil {
		return nil, err
	}
	l.owners = owners
	for _, o := range owners {
		l.counts[o]++
	}
	h := xxhash.New()
	fmt.Fprintf(h, "weir ring %d %d %x %d", Version, p.cfg.Partitions, math.Float64bits(p.cfg.Load), p.cfg.Replicas)
	var n [2]byte
	for _, name := range names {
		binary.BigEndian.PutUint16(n[:], uint16(len(name)))
		_, _ = h.Write(n[:])       // never fails
		_, _ = h.WriteString(name) // never fails
	}
	l.placed = h.Sum64()
	l.fingerprint = l.placed
	return l, nil
}

// Members returns the members, sorted by name. The slice is the view's own: do not change it.
func (v *View) Members() []Member { return v.members }

// Len returns the number of members, at least 1.
func (v *View) Len() int { return len(v.members) }

// Index returns the index of the named member in Members, or -1 if it is absent.
func (v *View) Index(name string) int {
	i, ok := slices.BinarySearchFunc(v.members, name, func(m Member, name string) int { return strings.Compare(m.Name, name) })
	if !ok {
		return -1
	}
	return i
}

// seat returns the index of the named member among the active ones, or -1 if it is absent.
func (v *View) seat(name string) int {
	i, ok := slices.BinarySearch(v.names, name)
	if !ok {
		return -1
	}
	return i
}

// Member returns the named member, and whether it exists.
func (v *View) Member(name string) (Member, bool) {
	i := v.Index(name)
	if i < 0 {
		return Member{}, false
	}
	return v.members[i], true
}

// Partitions returns the number of partitions.
func (v *View) Partitions() int { return len(v.owners) }

// Partition returns the partition of a key, in [0, Partitions).
func (v *View) Partition(key string) int { return v.PartitionOf(Hash(key)) }

// PartitionOf returns the partition of a key whose Hash is known.
func (v *View) PartitionOf(hash uint64) int { return int(hash % uint64(len(v.owners))) }

// Owner returns the member that owns a key. It does not allocate.
func (v *View) Owner(key string) Member { return v.OwnerOf(v.Partition(key)) }

// OwnerIndex returns the index in Members of the member that owns a key. It does not allocate.
func (v *View) OwnerIndex(key string) int { return v.OwnerIndexOf(v.Partition(key)) }

// OwnerIndexOf is OwnerIndex for a partition, which must be in [0, Partitions).
func (v *View) OwnerIndexOf(partition int) int {
	i := int(v.owners[partition])
	if v.seats != nil {
		return v.seats[i]
	}
	return i
}

// OwnerOf returns the member that owns a partition, which must be in [0, Partitions).
func (v *View) OwnerOf(partition int) Member { return v.active[v.owners[partition]] }

// Share returns the fraction of the partitions that the named member owns, 0 if it is not in the view.
func (v *View) Share(name string) float64 {
	i := v.seat(name)
	if i < 0 {
		return 0
	}
	return float64(v.counts[i]) / float64(len(v.owners))
}

// Fingerprint identifies the placement and the successors. Two views have the same one if and only if (up to
// a collision of 64 bits) they agree on their members' names and zones, which of them rest, Version and
// Config. Addresses and incarnations do not count.
func (v *View) Fingerprint() uint64 { return v.fingerprint ^ v.rest }
