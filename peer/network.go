package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// A Network is how a node reaches others. All methods may be called concurrently. Addresses are "ip:port"; only the lookups
// take names. The simulator of the tests provides its own; everything else uses the operating system's.
type Network interface {
	// ListenPacket opens a packet socket, as net.ListenPacket does for "udp".
	ListenPacket(ctx context.Context, addr string) (net.PacketConn, error)
	// Listen opens a listener, as net.Listen does for "tcp". Port 0 picks a free one, which the listener's Addr reports.
	Listen(ctx context.Context, addr string) (net.Listener, error)
	// Dial connects to a listener.
	Dial(ctx context.Context, addr string) (net.Conn, error)
	// LookupHost returns the IP addresses of a name.
	LookupHost(ctx context.Context, host string) ([]string, error)
	// LookupSRV returns the targets of the SRV records of a name as "host:port", ordered by priority and, within one
	// priority, randomly by weight.
	LookupSRV(ctx context.Context, name string) ([]string, error)
}

// systemNetwork is the operating system's network.
type systemNetwork struct {
	resolver *net.Resolver // nil: net.DefaultResolver
}

func (systemNetwork) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, "udp", addr)
}

func (systemNetwork) Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

func (systemNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (s systemNetwork) LookupHost(ctx context.Context, host string) ([]string, error) {
	return s.resolver.LookupHost(ctx, host)
}

func (s systemNetwork) LookupSRV(ctx context.Context, name string) ([]string, error) {
	_, records, err := s.resolver.LookupSRV(ctx, "", "", name)
	var targets []string
	for _, r := range records { // one bad record among them also causes an error
		targets = append(targets, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
	}
	if len(targets) > 0 {
		err = nil
	}
	return targets, err
}

// portAttempts is how many free TCP ports are tried until one is also free for UDP.
const portAttempts = 16

// openPort opens a listener and a packet socket on one port number of ip. Port 0 picks a number that is free for both.
func openPort(ctx context.Context, network Network, ip netip.Addr, port uint16) (net.Listener, net.PacketConn, netip.AddrPort, error) {
	var last error
	for range portAttempts {
		want := netip.AddrPortFrom(ip, port)
		ln, err := network.Listen(ctx, want.String())
		if err != nil {
			return nil, nil, netip.AddrPort{}, portError("TCP", want, err)
		}
		got, err := netip.ParseAddrPort(ln.Addr().String())
		if err != nil {
			return nil, nil, netip.AddrPort{}, errors.Join(fmt.Errorf("peer: the network listens on %q, which is no address: %w", ln.Addr(), err), ln.Close())
		}
		got = netip.AddrPortFrom(ip, got.Port())
		pc, err := network.ListenPacket(ctx, got.String())
		if err == nil {
			return ln, pc, got, nil
		}
		_ = ln.Close() // nobody has used it
		last = portError("UDP", got, err)
		if port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, nil, netip.AddrPort{}, last
}

// portError says which port could not be opened, and what to do about it.
func portError(protocol string, addr netip.AddrPort, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("peer: %s port %s on %s is taken by another process (or node); stop it, or set Bind to another port: %w",
			protocol, strconv.Itoa(int(addr.Port())), addr.Addr(), err)
	}
	return fmt.Errorf("peer: cannot listen on %s port %d of %s: %w", protocol, addr.Port(), addr.Addr(), err)
}
