//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/peer/peertest"
)

// lab is a few nodes in separate processes, each in its own network namespace. A veth pair connects each namespace to a
// bridge in one more namespace, which has a second bridge for splits.
type lab struct {
	world   world
	history *peertest.History
	origin  *peertest.Origin
	log     func(format string, args ...any)

	secret string
	dir    string // for sockets and logs; short, because the path of a socket must be
	prefix string // of the names of namespaces
	procs  []*process

	mu       sync.Mutex     // guards the rest
	cables   []int          // by node: number of faults that unplug its cable
	annex    []int          // by node: number of faults that put it on the second bridge
	oneWay   map[[2]int]int // by pair of nodes: number of faults that drop what the first sends to the second
	problems []error        // of commands and processes
}

// newLab creates the namespaces. The processes are down.
func newLab(seed uint64, w world, log func(format string, args ...any)) (l *lab, err error) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		return nil, fmt.Errorf("network namespaces need the command ip (apt-get install iproute2) and root (user id: %d): %w", os.Geteuid(), err)
	}
	dir, err := os.MkdirTemp("", "weir")
	if err != nil {
		return nil, err
	}
	key := make([]byte, peer.SecretSize)
	_, _ = rand.Read(key)
	h := &peertest.History{}
	l = &lab{
		world: w, history: h, origin: peertest.NewOrigin(h, seed, w.Timeout+4*time.Second), log: log, secret: hex.EncodeToString(key),
		dir: dir, prefix: fmt.Sprintf("weir%d-", os.Getpid()),
		cables: make([]int, w.Nodes), annex: make([]int, w.Nodes), oneWay: make(map[[2]int]int),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	hub := l.prefix + "hub"
	lines := []string{
		"netns add " + hub,
		"-n " + hub + " link add name hub type bridge forward_delay 0",
		"-n " + hub + " link set hub up",
		"-n " + hub + " link add name annex type bridge forward_delay 0",
		"-n " + hub + " link set annex up",
	}
	for i := range w.Nodes {
		p := &process{host: i, name: fmt.Sprintf("n%d", i), ip: addressOf(i), space: fmt.Sprintf("%sn%d", l.prefix, i)}
		l.procs = append(l.procs, p)
		lines = append(lines,
			"netns add "+p.space,
			fmt.Sprintf("-n %s link add name port%d type veth peer name eth0 address %s netns %s", hub, i, hardware(i), p.space),
			fmt.Sprintf("-n %s link set port%d master hub up", hub, i),
			fmt.Sprintf("-n %s link set lo up", p.space),
			fmt.Sprintf("-n %s addr add %s/24 dev eth0", p.space, p.ip),
			fmt.Sprintf("-n %s link set eth0 up", p.space))
	}
	for _, line := range lines {
		if err := ip(line); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// close kills the processes and removes the namespaces. It keeps the logs after an unintended failure.
func (l *lab) close() error {
	for _, p := range l.procs {
		l.end(p, (*process).kill)
	}
	_ = ip("netns del " + l.prefix + "hub") // fails if it was not created
	for _, p := range l.procs {
		_ = ip("netns del " + p.space)
	}
	if l.failed() != nil && l.world.Sabotage == "" {
		l.log("the logs of the nodes are in %s", l.dir)
		return nil
	}
	return os.RemoveAll(l.dir)
}

// problem records a failure of the lab itself or of a process.
func (l *lab) problem(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, err)
}

// failed returns the failures so far.
func (l *lab) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.problems...)
}

func hardware(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i+1) }

// ip runs the command ip.
func ip(line string) error {
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s(a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN for it)", line, err, out)
	}
	return nil
}

// change adds by to a counter of faults, and runs the command if that puts the fault into force or ends it.
func (l *lab) change(counter *int, by int, line string) {
	before := *counter
	if *counter += by; (before == 0) == (*counter == 0) {
		return
	}
	if err := ip(line); err != nil {
		l.problems = append(l.problems, err)
	}
}

// cut unplugs the cables of these nodes. undo plugs them in again.
func (l *lab) cut(nodes ...int) (undo func()) {
	return l.ports(l.cables, nodes, "down", "up")
}

// split moves the cables of these nodes to the second bridge. undo moves them back.
func (l *lab) split(nodes ...int) (undo func()) {
	return l.ports(l.annex, nodes, "master annex", "master hub")
}

// ports sets the ports of these nodes, and counts their faults of this kind. undo resets the ports.
func (l *lab) ports(faults []int, nodes []int, broken, whole string) (undo func()) {
	set := func(by int, state string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, i := range nodes {
			l.change(&faults[i], by, fmt.Sprintf("-n %shub link set port%d %s", l.prefix, i, state))
		}
	}
	set(1, broken)
	return func() { set(-1, whole) }
}

// cutOneWay diverts all that the first group sends to the second, to an unused hardware address. What the second group
// sends arrives. undo ends that.
func (l *lab) cutOneWay(from, to []int) (undo func()) {
	set := func(by int, hardware func(i int) string, state string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, a := range from {
			for _, b := range to {
				if a == b {
					continue
				}
				n := l.oneWay[[2]int{a, b}]
				l.change(&n, by, fmt.Sprintf("-n %s neigh replace %s lladdr %s nud %s dev eth0", l.procs[a].space, addressOf(b), hardware(b), state))
				l.oneWay[[2]int{a, b}] = n
			}
		}
	}
	set(1, func(int) string { return "02:00:00:00:00:99" }, "permanent")
	return func() { set(-1, hardware, "reachable") }
}

// others returns all hosts but i.
func (l *lab) others(i int) (out []int) {
	for j := range l.procs {
		if j != i {
			out = append(out, j)
		}
	}
	return out
}

// up returns the names of the running processes, including stopped ones.
func (l *lab) up() (names []string) {
	for _, p := range l.procs {
		p.mu.Lock()
		if p.up {
			names = append(names, p.name)
		}
		p.mu.Unlock()
	}
	slices.Sort(names)
	return names
}

// patience is the timeout for a condition that holds within seconds on a quiet machine.
const patience = 2 * time.Minute

// settled waits until every node in hosts has one and the same view, of exactly the processes among them that are up. With
// idle it waits as well until nothing is in flight, no member rests and the cap is divided by those nodes.
func (l *lab) settled(ctx context.Context, idle bool, hosts ...int) (took time.Duration, err error) {
	began := time.Now()
	for {
		if err = l.agreed(idle, hosts); err == nil {
			return time.Since(began), nil
		}
		if time.Since(began) > patience || ctx.Err() != nil {
			return 0, fmt.Errorf("not one view after %v: %w", time.Since(began).Round(time.Second), err)
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

func (l *lab) agreed(idle bool, hosts []int) error {
	var names []string
	for _, i := range hosts {
		names = append(names, l.procs[i].called())
	}
	slices.Sort(names)
	print := uint64(0)
	for _, i := range hosts {
		var s StatusReply
		p := l.procs[i]
		client := p.callable()
		if client == nil {
			return fmt.Errorf("%s is down or stopped", p.called())
		}
		if err := client.Call("Node.Status", StatusCall{}, &s); err != nil {
			return err
		}
		slices.Sort(s.Members)
		switch {
		case !slices.Equal(s.Members, names):
			return fmt.Errorf("%s sees %v instead of %v", p.called(), s.Members, names)
		case print != 0 && s.Fingerprint != print:
			return fmt.Errorf("%s has another view than the others", p.called())
		case idle && s.Busy != 0:
			return fmt.Errorf("%s has %d flights and loads", p.called(), s.Busy)
		case idle && len(s.Resting) > 0:
			return fmt.Errorf("%s sees %v rest", p.called(), s.Resting)
		case idle && s.Divisor != len(names):
			return fmt.Errorf("%s divides the cap by %d, %d are up", p.called(), s.Divisor, len(names))
		case idle && s.Unready != "":
			return fmt.Errorf("%s is not ready: %s", p.called(), s.Unready)
		}
		print = s.Fingerprint
	}
	return nil
}

// tellLog shows the end of a node's log.
func (l *lab) tellLog(p *process) {
	b, err := os.ReadFile(l.logPath(p))
	l.log("the log of %s ends with:\n%s (%v)", p.called(), b[max(0, len(b)-4000):], err)
}

func (l *lab) logPath(p *process) string { return filepath.Join(l.dir, fmt.Sprintf("n%d.log", p.host)) }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
