package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

// Version is the ring version: which rules place keys. Members whose versions differ
// place keys differently and must not share a ring.
const Version = 1

const (
	// DefaultPartitions is Config.Partitions where it is 0: a prime, some forty
	// partitions for each of a hundred members.
	DefaultPartitions = 4093
	// DefaultLoad is Config.Load where it is 0. Lower loads spread keys more evenly and
	// move more of them when the members change.
	DefaultLoad = 1.25
	// DefaultReplicas is Config.Replicas where it is 0.
	DefaultReplicas = 20
	// MaxName is the longest member name, in bytes.
	MaxName = 128
	// maxPartitions is the most partitions: they are numbered in 16 bits.
	maxPartitions = math.MaxUint16
	maxReplicas   = 1000
)

var (
	// ErrNoMembers says that a view needs at least one member.
	ErrNoMembers = errors.New("ring: no members")
	// ErrDuplicateMember says that two members have the same name.
	ErrDuplicateMember = errors.New("ring: duplicate member")
	// ErrTooManyMembers says that there are more members than partitions.
	ErrTooManyMembers = errors.New("ring: too many members")
	// ErrConfig says that a configuration or a member's name cannot be used.
	ErrConfig = errors.New("ring: bad configuration")
)

// Member is one process of the cluster.
type Member struct {
	Name        string // stable across restarts: it alone places keys
	Addr        string // host:port
	Incarnation uint64 // of this start of the process
}

// Config says how keys are placed. It must be the same on every member. Every zero
// value is a default.
type Config struct {
	Partitions int     // 0: DefaultPartitions
	Load       float64 // no member owns more than Load times its even share; 0: DefaultLoad
	Replicas   int     // points that each member has on the ring; 0: DefaultReplicas
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

func (c Config) check() error {
	switch {
	case c.Partitions < 1 || c.Partitions > maxPartitions:
		return fmt.Errorf("%w: Partitions is %d: it must be from 1 to %d", ErrConfig, c.Partitions, maxPartitions)
	case !(c.Load >= 1 && c.Load <= 100): // also catches NaN
		return fmt.Errorf("%w: Load is %v: it must be from 1 to 100", ErrConfig, c.Load)
	case c.Replicas < 1 || c.Replicas > maxReplicas:
		return fmt.Errorf("%w: Replicas is %d: it must be from 1 to %d", ErrConfig, c.Replicas, maxReplicas)
	}
	return nil
}

// A View is an immutable snapshot: the members, and the owner of every partition. It is a
// pure function of the members' names, Version and Config. It is read by any number of
// goroutines without locks. No method may be called on a nil View.
type View struct {
	cfg         Config
	members     []Member // sorted by name
	owners      []uint16 // partition -> index into members
	counts      []int    // partitions owned, by member
	fingerprint uint64
	without     []lost // by member
}

// point is one of a member's places on the ring.
type point struct {
	hash   uint64
	member uint16
}

// lost is the owners' table of the view without one member, made when first asked for.
type lost struct {
	once   sync.Once
	owners []uint16 // partition -> index into the members of the whole view
}

// node is a member as the placement library sees it.
type node struct {
	name  string
	index int
}

func (n node) String() string { return n.name }

type hasher struct{}

func (hasher) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

// Hash is the ring's hash of a key: XXH64 without a seed, the same on every member.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// New builds the view of members, in whatever order they come. It takes from about
// a millisecond for a few members to a few hundred for a thousand: call it off the hot
// path. The errors wrap ErrNoMembers, ErrDuplicateMember, ErrTooManyMembers or ErrConfig.
func New(members []Member, cfg Config) (*View, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if len(members) == 0 {
		return nil, ErrNoMembers
	}
	if len(members) > cfg.Partitions {
		return nil, fmt.Errorf("%w: %d members and %d partitions: raise Config.Partitions on all of them", ErrTooManyMembers, len(members), cfg.Partitions)
	}
	v := &View{cfg: cfg, members: slices.Clone(members)}
	slices.SortFunc(v.members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	for i, m := range v.members {
		if m.Name == "" || len(m.Name) > MaxName {
			return nil, fmt.Errorf("%w: a member's name has %d bytes: it must have from 1 to %d", ErrConfig, len(m.Name), MaxName)
		}
		if i > 0 && v.members[i-1].Name == m.Name {
			return nil, fmt.Errorf("%w: %q", ErrDuplicateMember, m.Name)
		}
	}
	var err error
	if v.owners, err = place(v.members, -1, cfg); err != nil {
		return nil, err
	}
	v.counts = make([]int, len(v.members))
	for _, o := range v.owners {
		v.counts[o]++
	}
	v.without = make([]lost, len(v.members))
	v.fingerprint = v.sum()
	return v, nil
}

// place asks the library for the owner of every partition among the members but the one
// with index skip.
func place(members []Member, skip int, cfg Config) (owners []uint16, err error) {
	defer func() { // the library panics when its bounds leave no room
		if p := recover(); p != nil {
			owners, err = nil, fmt.Errorf("%w: %v: raise Load or Partitions", ErrConfig, p)
		}
	}()
	nodes := make([]consistent.Member, 0, len(members))
	for i, m := range members {
		if i != skip {
			nodes = append(nodes, node{m.Name, i})
		}
	}
	c := consistent.New(nodes, consistent.Config{
		Hasher: hasher{}, PartitionCount: cfg.Partitions, ReplicationFactor: cfg.Replicas, Load: cfg.Load,
	})
	owners = make([]uint16, cfg.Partitions)
	for p := range owners {
		n, ok := c.GetPartitionOwner(p).(node)
		if !ok {
			return nil, fmt.Errorf("%w: partition %d has no owner", ErrConfig, p)
		}
		owners[p] = uint16(n.index)
	}
	return owners, nil
}

func (v *View) sum() uint64 {
	h := xxhash.New()
	fmt.Fprintf(h, "weir ring %d %d %x %d", Version, v.cfg.Partitions, math.Float64bits(v.cfg.Load), v.cfg.Replicas)
	var n [2]byte
	for _, m := range v.members {
		binary.BigEndian.PutUint16(n[:], uint16(len(m.Name)))
		h.Write(n[:])
		h.WriteString(m.Name)
	}
	return h.Sum64()
}

// Members returns the members, sorted by name. The slice is the view's own: do not change it.
func (v *View) Members() []Member { return v.members }

// Len is the number of members.
func (v *View) Len() int { return len(v.members) }

// Index returns the place of the named member in Members, -1 if it is not there.
func (v *View) Index(name string) int {
	i, ok := slices.BinarySearchFunc(v.members, name, func(m Member, name string) int { return strings.Compare(m.Name, name) })
	if !ok {
		return -1
	}
	return i
}

// Member returns the member with the name.
func (v *View) Member(name string) (Member, bool) {
	i := v.Index(name)
	if i < 0 {
		return Member{}, false
	}
	return v.members[i], true
}

// Partition returns the partition of a key, from 0 up.
func (v *View) Partition(key string) int { return v.PartitionOf(Hash(key)) }

// PartitionOf returns the partition of a key whose Hash is known.
func (v *View) PartitionOf(hash uint64) int { return int(hash % uint64(len(v.owners))) }

// Owner returns the member that owns a key.
func (v *View) Owner(key string) Member { return v.members[v.OwnerIndex(key)] }

// OwnerIndex returns the place in Members of the member that owns a key.
func (v *View) OwnerIndex(key string) int { return int(v.owners[v.Partition(key)]) }

// OwnerOf returns the member that owns a partition, which must be from 0 up and below Config.Partitions.
func (v *View) OwnerOf(partition int) Member { return v.members[v.owners[partition]] }

// Partitions is how many partitions there are.
func (v *View) Partitions() int { return len(v.owners) }

// Share returns the fraction of the partitions that the named member owns, 0 if it is not
// in the view.
func (v *View) Share(name string) float64 {
	i := v.Index(name)
	if i < 0 {
		return 0
	}
	return float64(v.counts[i]) / float64(len(v.owners))
}

// Fingerprint identifies the placement: two views have the same one if and only if (up to
// a collision of 64 bits) their members' names, Version and Config are the same. Addresses
// and incarnations do not count.
func (v *View) Fingerprint() uint64 { return v.fingerprint }
