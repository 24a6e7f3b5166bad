//go:build linux

package peertest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// lab is a few nodes in processes of their own, each in a network namespace of its own: a pair
// of veth devices leads from each to a bridge in one more namespace, where there is a second bridge for a split.
type lab struct {
	*testing.T
	world   world
	history *History
	origin  *Origin
	secret  string
	dir     string // of sockets; short, for the path of a socket is
	prefix  string // of the names of namespaces
	procs   []*process
}

// process is one node, which may be stopped, killed and started again.
type process struct {
	name, ip, space string

	mu          sync.Mutex // guards the rest
	incarnation int
	up          bool // from before its start until after its death
	cmd         *exec.Cmd
	client      *rpc.Client // nil: not to be called
	cancel      context.CancelFunc
	pauses      [][2]time.Time // when it was stopped and continued; the latter is zero while it is stopped
}

func newLab(t *testing.T, seed uint64, w world) *lab {
	ip, err := exec.LookPath("ip")
	if err != nil || os.Geteuid() != 0 {
		t.Fatalf("this test makes network namespaces, for which it needs the command ip (found: %q; apt-get install iproute2) and root (user id: %d). Leave it out with -short", ip, os.Geteuid())
	}
	dir, err := os.MkdirTemp("", "weir")
	if err != nil {
		t.Fatal(err)
	}
	key := make([]byte, peer.SecretSize)
	_, _ = rand.Read(key)
	h := &History{}
	l := &lab{T: t, world: w, history: h, origin: newOrigin(h, seed, loadTimeout+overrunFor), secret: hex.EncodeToString(key), dir: dir, prefix: fmt.Sprintf("weir%d-", os.Getpid())}
	t.Cleanup(func() {
		for _, p := range l.procs {
			l.end(p, (*process).kill)
		}
		_ = exec.Command("ip", "netns", "del", l.prefix+"hub").Run()
		for _, p := range l.procs {
			_ = exec.Command("ip", "netns", "del", p.space).Run()
			if t.Failed() {
				l.tellLog(p)
			}
		}
		_ = os.RemoveAll(dir)
	})
	hub := l.prefix + "hub"
	l.ip("netns add %s", hub)
	l.ip("-n %s link add name hub type bridge forward_delay 0", hub)
	l.ip("-n %s link set hub up", hub)
	l.ip("-n %s link add name annex type bridge forward_delay 0", hub)
	l.ip("-n %s link set annex up", hub)
	for i := range w.Nodes {
		p := &process{name: fmt.Sprintf("n%d", i), ip: addressOf(i), space: fmt.Sprintf("%sn%d", l.prefix, i)}
		l.procs = append(l.procs, p)
		l.ip("netns add %s", p.space)
		l.ip("-n %s link add name port%d type veth peer name eth0 address %s netns %s", hub, i, hardware(i), p.space)
		l.ip("-n %s link set port%d master hub up", hub, i)
		l.ip("-n %s link set lo up", p.space)
		l.ip("-n %s addr add %s/24 dev eth0", p.space, p.ip)
		l.ip("-n %s link set eth0 up", p.space)
	}
	return l
}

func hardware(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i+1) }

// ip runs the command ip.
func (l *lab) ip(format string, args ...any) {
	l.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		l.Fatalf("ip %s: %v: %s(a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN for it; -short leaves this test out)", line, err, out)
	}
}

// cut takes the cable of the i-th node out.
func (l *lab) cut(i int) { l.ip("-n %shub link set port%d down", l.prefix, i) }

// mend puts it in again.
func (l *lab) mend(i int) { l.ip("-n %shub link set port%d up", l.prefix, i) }

// move puts the cables of these nodes into the bridge called hub, where all are at first, or annex. Between the
// two nothing passes.
func (l *lab) move(bridge string, nodes ...int) {
	l.Helper()
	for _, i := range nodes {
		l.ip("-n %shub link set port%d master %s", l.prefix, i, bridge)
	}
}

// cutOneWay makes all that a sends to b go astray, by a hardware address that nobody has. What b sends arrives.
func (l *lab) cutOneWay(a, b int) {
	l.ip("-n %s neigh replace %s lladdr 02:00:00:00:00:99 nud permanent dev eth0", l.procs[a].space, addressOf(b))
}

func (l *lab) mendOneWay(a, b int) {
	l.ip("-n %s neigh replace %s lladdr %s nud reachable dev eth0", l.procs[a].space, addressOf(b), hardware(b))
}

func (l *lab) logPath(p *process) string { return filepath.Join(l.dir, p.name+".log") }

// tellLog shows the end of what a node logged.
func (l *lab) tellLog(p *process) {
	b, _ := os.ReadFile(l.logPath(p))
	l.Logf("the log of %s ends with:\n%s", p.name, b[max(0, len(b)-4000):])
}

// originCalls are the calls that the origin takes from one process.
type originCalls struct {
	load    tier.Loader[Value]
	started func()
}

func (o *originCalls) Load(key string, v *Value) (err error) {
	*v, err = o.load(context.Background(), &tier.Fill[Value]{Key: key})
	return err
}

func (o *originCalls) Started(struct{}, *struct{}) error { o.started(); return nil }

// start starts a process that is down.
func (l *lab) start(p *process) {
	l.Helper()
	p.mu.Lock()
	p.up = true
	p.incarnation++
	incarnation := p.incarnation
	p.mu.Unlock()
	socket := filepath.Join(l.dir, fmt.Sprintf("%s.%d", p.name, incarnation))
	listener, err := net.Listen("unix", socket)
	if err != nil {
		l.Fatal(err)
	}
	life, cancel := context.WithCancel(context.Background())
	s := rpc.NewServer()
	if err := s.RegisterName("Origin", &originCalls{
		l.origin.loader(life, p.name, incarnation), func() { l.history.started(p.name, incarnation) },
	}); err != nil {
		l.Fatal(err)
	}
	go func() { // ends with the process, or with end
		defer listener.Close()
		if c, err := listener.Accept(); err == nil {
			s.ServeConn(c)
		}
	}()
	log, err := os.OpenFile(l.logPath(p), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.Fatal(err)
	}
	defer log.Close()
	common, err := json.Marshal(l.world)
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", p.space, os.Args[0])
	cmd.Env = append(os.Environ(), nodeName+"="+p.name, nodeIP+"="+p.ip, nodeSecret+"="+l.secret, nodeOrigin+"="+socket, nodeWorld+"="+string(common))
	cmd.Stderr = log
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		l.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	client := rpc.NewClient(standard{out, in})
	p.mu.Lock()
	p.cmd, p.cancel = cmd, func() { cancel(); _ = listener.Close() }
	p.client = client
	p.mu.Unlock()
	if err := client.Call("Node.Status", struct{}{}, &StatusReply{}); err != nil {
		l.tellLog(p)
		l.Fatalf("%s did not start: %v", p.name, err)
	}
}

// kill ends the process without a word.
func (p *process) kill(cmd *exec.Cmd, _ *rpc.Client) error {
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it says that it was killed
	return nil
}

// close lets the process close its node, and gives the error with which it exits.
func (p *process) close(cmd *exec.Cmd, client *rpc.Client) error {
	_ = client.Close()
	defer time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() }).Stop()
	return cmd.Wait()
}

// end ends a process, if it is up.
func (l *lab) end(p *process, how func(*process, *exec.Cmd, *rpc.Client) error) {
	p.mu.Lock()
	cmd, client, cancel := p.cmd, p.client, p.cancel
	p.cmd, p.client = nil, nil
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := how(p, cmd, client); err != nil {
		l.Errorf("%s exits with %v", p.name, err)
	}
	cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = false
}

// halt stops a process, as a debugger or a frozen machine does.
func (p *process) halt() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pauses = append(p.pauses, [2]time.Time{time.Now()})
	return p.cmd.Process.Signal(syscall.SIGSTOP)
}

func (p *process) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.cmd.Process.Signal(syscall.SIGCONT)
	p.pauses[len(p.pauses)-1][1] = time.Now()
	return err
}

// callable returns the client of a process that can answer, or nil.
func (p *process) callable() *rpc.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.pauses); n > 0 && p.pauses[n-1][1].IsZero() {
		return nil
	}
	return p.client
}

// stoppedSince returns for how long the process has been stopped since the given time.
func (p *process) stoppedSince(from time.Time) (d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.pauses {
		if s[1].After(from) {
			d += s[1].Sub(slices.MaxFunc([]time.Time{s[0], from}, time.Time.Compare))
		}
	}
	return d
}
