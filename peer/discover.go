package peer

import (
	"cmp"
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
	// discoverWait bounds one call of Config.Discover.
	discoverWait = 3 * time.Second
	// maxDiscovered is how many seeds of one answer of Config.Discover are looked at: as
	// many as a view has members at the most by default.
	maxDiscovered = 1024
	// maxTargets is how many records of one SRV answer are followed, those that come first.
	maxTargets = 64
	// lookupsAtOnce is how many names are resolved at the same time.
	lookupsAtOnce = 16
	// maxDNSName is the longest name of the DNS, in bytes.
	maxDNSName = 253
)

// systemLookupSRV asks the operating system's resolver.
func systemLookupSRV(ctx context.Context, name string) ([]*net.SRV, error) {
	_, found, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
	return found, err
}

// isService reports whether a seed is the name of a service, "_service._proto.name".
func isService(seed string) bool { return strings.HasPrefix(seed, "_") }

// checkSeed says what is wrong with the text of a seed, if anything.
func checkSeed(seed string) error {
	if isService(seed) {
		labels := strings.Split(strings.TrimSuffix(seed, "."), ".")
		switch {
		case strings.Contains(seed, ":"):
			return fmt.Errorf("%q has a port; the records of a service name bring their own", seed)
		case len(seed) > maxDNSName || len(labels) < 3 || slices.Contains(labels, "") || !strings.HasPrefix(labels[1], "_"):
			return fmt.Errorf("%q is no service name; it is written as _members._tcp.weir.example.org", seed)
		}
		return checkName(seed, maxDNSName)
	}
	_, port, err := splitAddress(seed)
	if err == nil && port == 0 {
		err = fmt.Errorf("%q has port 0; name the port that the seed listens on", seed)
	}
	return err
}

// A candidate is an address that a seed stands for.
type candidate struct {
	addr     netip.AddrPort
	priority uint16 // of the SRV record; lower ones are tried first
}

// A finder turns the seeds of a Config into addresses. Only the goroutine of rejoin uses it.
type finder struct {
	network   Network
	lookupSRV func(context.Context, string) ([]*net.SRV, error)
	fixed     []string // Config.Join
	discover  func(context.Context) ([]string, error)

	asked      chan discovered        // where the answer of a call of discover will be; nil: none is under way
	discovered []string               // the last good answer of discover
	last       map[string][]candidate // the last good answer for each seed
}

type discovered struct {
	seeds []string
	err   error
}

func newFinder(s *settings) *finder {
	return &finder{network: s.Network, lookupSRV: s.LookupSRV, fixed: s.Join, discover: s.Discover}
}

// find returns the addresses of all seeds, each once, in the order of their priority, and what
// went wrong. A seed that cannot be resolved stands for what it was when it last could. A
// name that does not exist is no failure: it stands for no members.
func (f *finder) find(ctx context.Context) ([]candidate, error) {
	failed := f.ask(ctx)
	seeds := slices.Concat(f.fixed, f.discovered)
	slices.Sort(seeds)
	seeds = slices.Compact(seeds)

	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	found := make([][]candidate, len(seeds))
	errs := make([]error, len(seeds))
	slots := make(chan struct{}, lookupsAtOnce)
	var wg sync.WaitGroup
	for i, seed := range seeds {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			found[i], errs[i] = f.resolve(ctx, seed)
		})
	}
	wg.Wait()
	last := make(map[string][]candidate, len(seeds))
	for i, seed := range seeds {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("seed %s: %w", seed, errs[i])
			if len(found[i]) == 0 {
				found[i] = f.last[seed]
			}
		}
		last[seed] = found[i]
	}
	f.last = last
	all := slices.Concat(found...)
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.priority, b.priority))
	})
	all = slices.CompactFunc(all, func(a, b candidate) bool { return a.addr == b.addr })
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.priority, b.priority) })
	return all, errors.Join(failed, errors.Join(errs...))
}

// resolve returns what one seed stands for. Addresses and an error: some of it.
func (f *finder) resolve(ctx context.Context, seed string) ([]candidate, error) {
	if !isService(seed) {
		addrs, err := resolve(ctx, f.network, seed)
		return candidates(addrs, 0), found(err)
	}
	records, err := f.lookupSRV(ctx, seed)
	if err != nil {
		return nil, found(err)
	}
	records = slices.DeleteFunc(slices.Clone(records), func(r *net.SRV) bool {
		return r == nil || r.Port == 0 || strings.Trim(r.Target, ".") == "" // "." says that there is no such service
	})
	slices.SortStableFunc(records, func(a, b *net.SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	records = records[:min(len(records), maxTargets)]
	all := make([][]candidate, len(records))
	errs := make([]error, len(records))
	slots := make(chan struct{}, lookupsAtOnce)
	var wg sync.WaitGroup
	for i, r := range records {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			addrs, err := resolveHost(ctx, f.network, r.Target, r.Port)
			all[i], errs[i] = candidates(addrs, r.Priority), found(err)
		})
	}
	wg.Wait()
	return slices.Concat(all...), errors.Join(errs...)
}

func candidates(addrs []netip.AddrPort, priority uint16) []candidate {
	out := make([]candidate, len(addrs))
	for i, a := range addrs {
		out[i] = candidate{a, priority}
	}
	return out
}

// found is err without the one that says that a name does not exist.
func found(err error) error {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		return nil
	}
	return err
}

// ask calls Discover and keeps what it answers, if that is any good. A call that ignores the
// end of its context is left alone, and there is no second one beside it: its answer is
// looked at when it is there.
func (f *finder) ask(ctx context.Context) error {
	if f.discover == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, discoverWait)
	defer cancel()
	select {
	case d := <-f.asked: // of the call before, which took too long
		f.asked = nil
		_ = f.take(d) // it has been complained about, and here is the next one
	default:
	}
	if f.asked == nil {
		f.asked = make(chan discovered, 1)
		go func(answer chan<- discovered) { // not joined: it is the user's, and Close must not wait for it
			var d discovered
			defer func() {
				if p := recover(); p != nil {
					d = discovered{err: fmt.Errorf("it panicked: %v", p)}
				}
				answer <- d
			}()
			seeds, err := f.discover(ctx)
			d = discovered{slices.Clone(seeds), err}
		}(f.asked)
	}
	select {
	case d := <-f.asked:
		f.asked = nil
		return f.take(d)
	case <-ctx.Done():
		return fmt.Errorf("Discover: no answer: %w", ctx.Err())
	}
}

// take looks at an answer of Discover and keeps what is good, if anything is.
func (f *finder) take(d discovered) error {
	if d.err != nil {
		return fmt.Errorf("Discover: %w", d.err)
	}
	var good []string
	var errs []error
	if len(d.seeds) > maxDiscovered {
		errs = append(errs, fmt.Errorf("Discover: %d seeds, the first %d are used", len(d.seeds), maxDiscovered))
		d.seeds = d.seeds[:maxDiscovered]
	}
	for _, seed := range d.seeds {
		if err := checkSeed(seed); err != nil {
			errs = append(errs, fmt.Errorf("Discover: %w", err))
			continue
		}
		good = append(good, seed)
	}
	if len(good) > 0 || len(d.seeds) == 0 {
		f.discovered = good
	}
	return errors.Join(errs[:min(len(errs), 4)]...)
}
