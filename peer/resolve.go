package peer

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
	// lookups is how many of a service's targets one attempt resolves: some of them, other ones each time.
	// One seed that answers is enough.
	lookups = 32
)

// isService reports whether a seed is the name of SRV records, whose first label is "_service".
func isService(seed string) bool { return strings.HasPrefix(seed, "_") }

// checkSeed says what is wrong with an element of Config.Join, or of what Config.Discover found.
func checkSeed(seed string) error {
	if isService(seed) {
		switch labels := strings.Split(strings.TrimSuffix(seed, "."), "."); {
		case strings.Contains(seed, ":"):
			return fmt.Errorf("%q names SRV records, which have the ports in them: leave the port out", seed)
		case len(labels) < 3 || labels[0] == "_" || labels[1] != "_tcp" && labels[1] != "_udp" || slices.Contains(labels, ""):
			return fmt.Errorf("%q is no name of SRV records, which are called _service._tcp.name", seed)
		}
		return nil
	}
	_, port, err := splitAddress(seed)
	if err == nil && port == 0 {
		err = fmt.Errorf("%q has port 0; name the port that the seed listens on", seed)
	}
	return err
}

// seeds returns Config.Join and what Config.Discover finds or, if it fails, found last. It is called by one
// goroutine at a time.
func (n *Node) seeds(ctx context.Context) ([]string, error) {
	if n.cfg.Discover == nil {
		return n.cfg.Join, nil
	}
	found, err := n.cfg.Discover(ctx)
	if err != nil {
		err = fmt.Errorf("calling Discover: %w", err)
	} else {
		n.discovered = slices.Clone(found)
	}
	return slices.Concat(n.cfg.Join, n.discovered), err
}

// resolveSeeds returns the addresses of all seeds, each once, and what could not be
// resolved. A name that does not exist is no failure: it stands for no members.
func (n *Node) resolveSeeds(ctx context.Context) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	seeds, failed := n.seeds(ctx)
	found := make([][]netip.AddrPort, len(seeds))
	errs := make([]error, len(seeds))
	var wg sync.WaitGroup
	for i, seed := range seeds {
		wg.Go(func() {
			addrs, err := n.resolveSeed(ctx, seed)
			if err != nil && !isMissing(err) {
				errs[i] = fmt.Errorf("seed %s: %w", seed, err)
			}
			found[i] = addrs
		})
	}
	wg.Wait()
	all := slices.Concat(found...)
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all), errors.Join(append(errs, failed)...)
}

// isMissing reports whether an error says that there is no such name.
func isMissing(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// resolveSeed returns the addresses of a seed: a "host:port", or the name of SRV records.
func (n *Node) resolveSeed(ctx context.Context, seed string) ([]netip.AddrPort, error) {
	network := n.cfg.Network
	if err := checkSeed(seed); err != nil {
		return nil, err
	}
	if !isService(seed) {
		return resolve(ctx, network, seed)
	}
	targets, err := network.LookupSRV(ctx, seed)
	if err != nil {
		return nil, err
	}
	if len(targets) > lookups {
		n.shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		targets = targets[:lookups]
	}
	found := make([][]netip.AddrPort, len(targets))
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, target := range targets {
		wg.Go(func() {
			if found[i], errs[i] = resolve(ctx, network, target); isMissing(errs[i]) {
				errs[i] = nil // it has gone since
			}
		})
	}
	wg.Wait()
	return slices.Concat(found...), errors.Join(errs...)
}

// resolve turns a "host:port" into addresses, asking the network for names.
func resolve(ctx context.Context, network Network, addr string) ([]netip.AddrPort, error) {
	host, port, err := splitAddress(addr)
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
