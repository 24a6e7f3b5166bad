package scenario

import (
	"time"
)

// A Scenario describes one run. Parse makes it, complete and validated. It is read-only from then on.
type Scenario struct {
	Name     string   `yaml:"name" json:"name"`
	About    string   `yaml:"about" json:"about"`       // in one sentence
	Duration Duration `yaml:"duration" json:"duration"` // of the measured part; at most an hour
	Warmup   Duration `yaml:"warmup,omitempty" json:"warmup"`
	Seed     uint64   `yaml:"seed" json:"seed"`
	Cluster  Cluster  `yaml:"cluster" json:"cluster"`
	Values   Values   `yaml:"values" json:"values"`
	Origin   Origin   `yaml:"origin" json:"origin"`
	Load     []Load   `yaml:"load" json:"load"`
	Faults   []Fault  `yaml:"faults,omitempty" json:"faults,omitempty"`
	// ByFault reports origin calls and errors separately for each fault, beside those before the first one.
	ByFault bool    `yaml:"by_fault,omitempty" json:"by_fault,omitempty"`
	Claims  []Claim `yaml:"claims,omitempty" json:"claims,omitempty"`
}

// The kinds of a cluster.
const (
	InProcess = "inprocess" // all nodes in this process, over real sockets on the loopback
	Processes = "processes" // each node a process, on the loopback
	Existing  = "existing"  // services that already run, requested over HTTP
)

// Cluster is the measured cluster, with the contract that all systems get.
type Cluster struct {
	Kind  string `yaml:"kind" json:"kind"`
	Nodes int    `yaml:"nodes" json:"nodes"`
	Near  Bytes  `yaml:"near" json:"near"`   // of a node's near tier
	Owned Bytes  `yaml:"owned" json:"owned"` // of a node's owned tier
	// Percent, if not 0, makes all tiers of all nodes together as large as this percentage of the bytes of all keys with
	// their values. Near and Owned are then their proportion. A tier has at least 64 KiB.
	Percent     float64   `yaml:"percent,omitempty" json:"percent,omitempty"`
	Concurrency int       `yaml:"concurrency" json:"concurrency"` // concurrent loads of the whole cluster
	Timeout     Duration  `yaml:"timeout" json:"timeout"`         // of one load
	Freshness   Freshness `yaml:"freshness" json:"freshness"`
	// WhenIsolated is what a node does that has lost contact with most others: serve-stale, bypass or fail.
	WhenIsolated string `yaml:"when_isolated" json:"when_isolated"`
	// Addresses are the services' base URLs. Path is the path of a key, with "{key}" in its place. Stats is the
	// path of a node's statistics. Only for kind existing.
	Addresses []string `yaml:"addresses,omitempty" json:"addresses,omitempty"`
	Path      string   `yaml:"path,omitempty" json:"path,omitempty"`
	Stats     string   `yaml:"stats,omitempty" json:"stats,omitempty"`
}

// Freshness is tier.Freshness in a file: the fields and their defaults are the same.
type Freshness struct {
	TTL                  Duration `yaml:"ttl" json:"ttl"`
	StaleWhileRevalidate Duration `yaml:"stale_while_revalidate,omitempty" json:"stale_while_revalidate"`
	StaleIfError         Duration `yaml:"stale_if_error,omitempty" json:"stale_if_error"`
	NegativeTTL          Duration `yaml:"negative_ttl,omitempty" json:"negative_ttl"`
	ErrorTTL             Duration `yaml:"error_ttl,omitempty" json:"error_ttl"`
	NearTTL              Duration `yaml:"near_ttl,omitempty" json:"near_ttl"`
	Jitter               float64  `yaml:"jitter,omitempty" json:"jitter"`
	RefreshAhead         float64  `yaml:"refresh_ahead,omitempty" json:"refresh_ahead"`
}

// Values configures the sizes of values.
type Values struct {
	Kind string `yaml:"kind" json:"kind"`                     // fixed, lognormal or trace
	Size Bytes  `yaml:"size,omitempty" json:"size,omitempty"` // fixed; trace: if none is recorded
	Max  Bytes  `yaml:"max,omitempty" json:"max,omitempty"`   // all but fixed: larger sizes are cut
	P50  Bytes  `yaml:"p50,omitempty" json:"p50,omitempty"`   // lognormal
	P99  Bytes  `yaml:"p99,omitempty" json:"p99,omitempty"`   // lognormal
}

// Origin configures the behaviour of the origin.
type Origin struct {
	Latency  Latency  `yaml:"latency" json:"latency"`
	Capacity int      `yaml:"capacity,omitempty" json:"capacity"` // concurrent loads that it serves without slowing down; 0: any number
	Growth   float64  `yaml:"growth,omitempty" json:"growth"`     // relative increase of latency for each further capacity
	Limit    int      `yaml:"limit,omitempty" json:"limit"`       // concurrent loads above which it rejects loads; 0: none
	Errors   float64  `yaml:"errors,omitempty" json:"errors"`     // fraction of the loads that fail
	Outages  []Outage `yaml:"outages,omitempty" json:"outages,omitempty"`
}

// Latency is a distribution: fixed (p50) or lognormal (p50 and p99). The default is 40ms, fixed.
type Latency struct {
	Kind string   `yaml:"kind" json:"kind"`
	P50  Duration `yaml:"p50,omitempty" json:"p50,omitempty"`
	P99  Duration `yaml:"p99,omitempty" json:"p99,omitempty"`
}

// Outage is a time in which the origin misbehaves: it fails all loads (error), does not answer until the outage is
// over or the load gives up (hang), or takes Factor times as long (slow).
type Outage struct {
	From   Duration `yaml:"from" json:"from"`
	To     Duration `yaml:"to" json:"to"`
	Kind   string   `yaml:"kind" json:"kind"`
	Factor float64  `yaml:"factor,omitempty" json:"factor,omitempty"`
}

// Load is one stream of requests.
type Load struct {
	Name string `yaml:"name" json:"name"`
	// Loop is closed (each caller sends its next request as soon as the previous one is answered), open (requests
	// arrive at Rate, whether or not earlier ones are answered; latency counts from when they were due) or burst
	// (all callers ask for one key at once, every Every).
	Loop    string   `yaml:"loop" json:"loop"`
	Callers int      `yaml:"callers" json:"callers"`                     // over all nodes; open: the maximum at once
	Rate    float64  `yaml:"rate,omitempty" json:"rate,omitempty"`       // open: requests per second
	Arrival string   `yaml:"arrival,omitempty" json:"arrival,omitempty"` // open: poisson or even
	Every   Duration `yaml:"every,omitempty" json:"every,omitempty"`     // burst
	From    Duration `yaml:"from,omitempty" json:"from,omitempty"`       // start
	To      Duration `yaml:"to,omitempty" json:"to,omitempty"`           // end; 0: with the run
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"` // of a request; 0: none
	Keys    Keys     `yaml:"keys" json:"keys"`
	Mix     Mix      `yaml:"mix,omitempty" json:"mix,omitempty"`
}

// Keys configures which keys are requested.
type Keys struct {
	Kind  string  `yaml:"kind" json:"kind"`                       // zipf, uniform, hot, scan, fresh or trace
	Count int     `yaml:"count,omitempty" json:"count,omitempty"` // number of keys; trace: maximum number of requests, 0 all
	Theta float64 `yaml:"theta,omitempty" json:"theta,omitempty"` // zipf
	Items int64   `yaml:"items,omitempty" json:"items,omitempty"` // zipf: ranks, 0: as YCSB
	// Requests, if not 0, ends the load after so many requests of generated keys.
	Requests int     `yaml:"requests,omitempty" json:"requests,omitempty"`
	Share    float64 `yaml:"share,omitempty" json:"share,omitempty"` // hot: of the hot key
	// File and Format (see the package trace) belong to traces.
	File   string `yaml:"file,omitempty" json:"file,omitempty"`
	Format string `yaml:"format,omitempty" json:"format,omitempty"`
}

// Mix is how often each operation is performed, by weight. Empty: only reads.
type Mix struct {
	Read  float64 `yaml:"read,omitempty" json:"read,omitempty"`
	Write float64 `yaml:"write,omitempty" json:"write,omitempty"` // at the origin, then Invalidate
	// Many reads Batch different keys in one call. The rate counts calls; the measures count the keys as gets, with
	// the latency of the whole call once.
	Many  float64 `yaml:"many,omitempty" json:"many,omitempty"`
	Batch int     `yaml:"batch,omitempty" json:"batch,omitempty"`
}

// The faults.
const (
	Kill    = "kill"    // the node ends abruptly
	Leave   = "leave"   // the node leaves gracefully
	Join    = "join"    // a node that is down comes back, or comes, empty
	Rolling = "rolling" // the nodes leave and join one after another, Every apart, down for For
	Cut     = "cut"     // nothing passes between Nodes and the others, for For
	Starve  = "starve"  // the node has no CPU for half of every tenth of a second, for For; its callers keep calling it
	Flush   = "flush"   // everything is invalidated
	// Stall stops all processes of the run at once for For, those of the harness included, as the pause of a virtual
	// machine does. Requests are due meanwhile, and come at once afterwards.
	Stall = "stall"
)

// Fault is a fault and its time.
type Fault struct {
	At    Duration `yaml:"at" json:"at"`
	Do    string   `yaml:"do" json:"do"`
	Node  int      `yaml:"node,omitempty" json:"node,omitempty"`
	Nodes []int    `yaml:"nodes,omitempty" json:"nodes,omitempty"` // cut: one side of the cut
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	For   Duration `yaml:"for,omitempty" json:"for,omitempty"`
	// Noticed is how long after a kill the load balancer learns of it. Until then callers are still sent to the dead
	// node, and their calls fail at once. 0: the load balancer knew before.
	Noticed Duration `yaml:"noticed,omitempty" json:"noticed,omitempty"`
}

// D returns the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }
