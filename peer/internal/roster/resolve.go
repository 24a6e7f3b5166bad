package roster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// lookupWait bounds one attempt to find the seeds' addresses.
	lookupWait = 2 * time.Second
	// lookups is how many of a service's targets one attempt resolves. Attempts alternate: one takes the first targets, the
	// next continues in the list of all targets where the last such attempt stopped, so that each target gets its turn. One
	// seed that answers is enough.
	lookups = 32
	// lookupsAtOnce is how many names are resolved at the same time.
	lookupsAtOnce = 16
	// maxSeed is the longest seed, in bytes: a DNS name and a port.
	maxSeed = 253 + len(":65535")
	// fewErrors is how many errors of one kind are reported.
	fewErrors = 4
)

// isService reports whether a seed is the name of SRV records, whose first label is "_service".
func isService(seed string) bool { return strings.HasPrefix(seed, "_") }

// CheckSeed returns what is wrong with a seed that is configured or discovered.
func CheckSeed(seed string) error {
	if len(seed) > maxSeed {
		return fmt.Errorf("%.32q...: %d bytes, the limit is %d", seed, len(seed), maxSeed)
	}
	if isService(seed) {
		switch labels := strings.Split(strings.TrimSuffix(seed, "."), "."); {
		case strings.Contains(seed, ":"):
			return fmt.Errorf("%q names SRV records, which have the ports in them: leave the port out", seed)
		case len(labels) < 3 || labels[0] == "_" || labels[1] != "_tcp" && labels[1] != "_udp" || slices.Contains(labels, ""):
			return fmt.Errorf("%q is not a name of SRV records, which are called _service._tcp.name", seed)
		}
		return nil
	}
	_, port, err := SplitAddress(seed)
	if err == nil && port == 0 {
		err = fmt.Errorf("%q has port 0; name the port that the seed listens on", seed)
	}
	return err
}

// A Resolver looks up names. Network is one.
type Resolver interface {
	// LookupHost returns the IP addresses of a name.
	LookupHost(ctx context.Context, host string) ([]string, error)
	// LookupSRV returns the targets of the SRV records of a name as "host:port", in their order.
	LookupSRV(ctx context.Context, name string) ([]string, error)
}

// A finder resolves the seeds to addresses. Only the goroutine of rejoin uses it.
type finder struct {
	network  Resolver
	fixed    []string // Seeds.Fixed
	discover discovery
	shuffle  func(count int, swap func(i, j int))

	// The last good answers, used while a resolver fails.
	targets map[string][]string         // of the names of SRV records
	addrs   map[string][]netip.AddrPort // of each "host:port"

	continuing bool // this attempt continues in the list of all seeds, instead of taking the first ones
	partial    bool // it has looked at only some targets of a service

	// Where the last wide attempt stopped: the last target that it resolved, by service, and the last address that it tried
	// to join.
	targetTurn map[string]string
	addrTurn   netip.AddrPort

	logged []string // the failures already logged
}

// A lookup collects what one attempt finds out about names. Its goroutines share it.
type lookup struct {
	f     *finder
	slots chan struct{} // one for each concurrent lookup

	mu      sync.Mutex // guards the fields below
	targets map[string][]string
	addrs   map[string][]netip.AddrPort
	failed  []failure
}

// find returns the addresses of all seeds, each once, and what went wrong. The targets of a service stay in their order,
// the addresses of a name are in random order, and the seeds alternate. For a seed that cannot be resolved, the last known
// addresses are used. A name that does not exist is not a failure: it has no members.
func (f *finder) find(ctx context.Context) ([]netip.AddrPort, []failure) {
	found, err := f.discover.ask(ctx)
	seeds := slices.Concat(f.fixed, found)
	slices.Sort(seeds)
	seeds = slices.Compact(seeds)
	f.shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })

	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	l := lookup{f: f, slots: make(chan struct{}, lookupsAtOnce), targets: make(map[string][]string), addrs: make(map[string][]netip.AddrPort)}
	if err != nil {
		l.failed = append(l.failed, failure{"Discover", err})
	}
	f.partial = false
	groups := make([][]string, len(seeds)) // the "host:port"s of each seed
	var wg sync.WaitGroup
	for i, seed := range seeds {
		if groups[i] = []string{seed}; isService(seed) {
			wg.Go(func() { groups[i] = l.service(ctx, seed) })
		}
	}
	wg.Wait()
	var later []string // not looked up in this attempt
	for i, targets := range groups {
		if len(targets) > lookups {
			f.partial = true
			if f.continuing {
				targets = turnOf(targets, f.targetTurn[seeds[i]], strings.Compare, f.shuffle)
				if f.targetTurn == nil {
					f.targetTurn = make(map[string]string)
				}
				f.targetTurn[seeds[i]] = targets[lookups-1]
			}
			groups[i], later = targets[:lookups], append(later, targets[lookups:]...)
		}
		for _, target := range groups[i] {
			wg.Go(func() { l.host(ctx, target) })
		}
	}
	wg.Wait()
	for _, target := range later {
		if _, ok := l.addrs[target]; !ok && f.addrs[target] != nil {
			l.addrs[target] = f.addrs[target]
		}
	}
	f.targets, f.addrs = l.targets, l.addrs
	for service := range f.targetTurn {
		if len(f.targets[service]) <= lookups {
			delete(f.targetTurn, service)
		}
	}
	all := make([][]netip.AddrPort, len(groups))
	for i, targets := range groups {
		for _, target := range targets {
			addrs := slices.Clone(f.addrs[target])
			f.shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
			all[i] = append(all[i], addrs...)
		}
	}
	addrs := inTurn(all)
	switch {
	case f.continuing && f.partial: // the targets alternate already
		f.shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	case f.continuing:
		addrs = turnOf(addrs, f.addrTurn, netip.AddrPort.Compare, f.shuffle)
	}
	slices.SortFunc(l.failed, func(a, b failure) int { return strings.Compare(a.what, b.what) })
	return addrs, l.failed
}

// service returns the targets of a service, in their order.
func (l *lookup) service(ctx context.Context, name string) []string {
	targets, err := inSlot(ctx, l.slots, func() ([]string, error) { return l.f.network.LookupSRV(ctx, name) })
	if err == nil || isMissing(err) {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t string) bool { return isService(t) || CheckSeed(t) != nil })
	} else {
		targets = l.f.targets[name]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(name, err)
	l.targets[name] = targets
	return slices.Clone(targets)
}

// host finds the addresses of a "host:port".
func (l *lookup) host(ctx context.Context, target string) {
	addrs, err := inSlot(ctx, l.slots, func() ([]netip.AddrPort, error) { return Resolve(ctx, l.f.network, target) })
	if err != nil && !isMissing(err) {
		addrs = l.f.addrs[target]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.addrs[target]; !ok { // otherwise two services share it
		l.note(target, err)
	}
	l.addrs[target] = addrs
}

// note records a failure. The caller holds mu.
func (l *lookup) note(what string, err error) {
	if err != nil && !isMissing(err) {
		l.failed = append(l.failed, failure{"seed " + what, err})
	}
}

// inSlot runs f once a slot is free.
func inSlot[T any](ctx context.Context, slots chan struct{}, f func() (T, error)) (t T, err error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return t, ctx.Err()
	}
	defer func() { <-slots }()
	return f()
}

// turnOf returns the list sorted and rotated so that it begins after last, where the next attempt continues. If last is the
// zero value there was no attempt, and it begins at a random place, so that not all nodes load the same seeds.
func turnOf[T comparable](list []T, last T, compare func(a, b T) int, shuffle func(int, func(i, j int))) []T {
	list = slices.Clone(list)
	var none T
	if len(list) > 0 && last == none {
		shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		last = list[0]
	}
	slices.SortFunc(list, compare)
	i, found := slices.BinarySearchFunc(list, last, compare)
	if found {
		i++
	}
	return slices.Concat(list[i:], list[:i])
}

// inTurn returns the first of each list, then the second of each, and so on, each address once.
func inTurn(lists [][]netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	seen := make(map[netip.AddrPort]bool)
	for i, more := 0, true; more; i++ {
		more = false
		for _, list := range lists {
			if i >= len(list) {
				continue
			}
			if more = true; !seen[list[i]] {
				seen[list[i]] = true
				out = append(out, list[i])
			}
		}
	}
	return out
}

// A failure is why a seed's addresses are unknown or outdated.
type failure struct {
	what string
	err  error
}

func (f failure) Error() string { return f.what + ": " + f.err.Error() }

func (f failure) Unwrap() error { return f.err }

// kind returns the message of the failure without the parts that differ each time: ports, durations, stacks.
func (f failure) kind() string {
	if k, ok := f.err.(interface{ kind() string }); ok {
		return f.what + ": " + k.kind()
	}
	var dns *net.DNSError
	if errors.As(f.err, &dns) && dns.IsTimeout || errors.Is(f.err, context.DeadlineExceeded) {
		return f.what + ": timeout"
	}
	return f.Error()
}

// allFailed returns one error for all failures, or nil.
func allFailed(failed []failure) error {
	errs := make([]error, len(failed))
	for i, f := range failed {
		errs[i] = f
	}
	return few(errs)
}

// few joins errors. If there are many, it keeps only the first ones.
func few(errs []error) error {
	if rest := len(errs) - fewErrors; rest > 0 {
		errs = append(slices.Clone(errs[:fewErrors]), fmt.Errorf("and %d more", rest))
	}
	return errors.Join(errs...)
}

// isMissing reports whether an error says that a name does not exist.
func isMissing(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// Resolve resolves a "host:port" to addresses, and asks the network for names.
func Resolve(ctx context.Context, network Resolver, addr string) ([]netip.AddrPort, error) {
	host, port, err := SplitAddress(addr)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), port)}, nil
	}
	found, err := network.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.AddrPort, 0, len(found))
	for _, f := range found {
		if ip, err := netip.ParseAddr(f); err == nil {
			out = append(out, netip.AddrPortFrom(ip.Unmap(), port))
		}
	}
	return out, nil
}
