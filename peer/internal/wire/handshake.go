package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/trust"
	"github.com/weircache/weir/ring"
)

// Handshake runs the dialling side of the handshake on a connection to a member. It returns the connection to use, which
// closes raw as well. On error, raw stays open and belongs to the caller.
func (d *Plane) Handshake(ctx context.Context, raw net.Conn, to ring.Member) (net.Conn, error) {
	conn, secure := raw, d.cfg.Trust != nil && d.cfg.Trust.Client(to.Name) != nil
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := raw.SetDeadline(time.Now().Add(HelloTimeout)); err != nil {
		return nil, err
	}
	front := []byte(Magic)
	if secure {
		s, err := dialSecured(d.cfg.Trust, raw, to.Name)
		if err != nil {
			return nil, err
		}
		conn, front = s, nil
	}
	_, sendErr := conn.Write(d.Hello().Append(front))
	if sendErr != nil && !trust.IsEnd(sendErr) {
		return nil, fmt.Errorf("sending a hello: %w", sendErr)
	}
	other, err := ReadHello(conn) // read even if the write failed: the other side may have sent a reason before it closed
	if err != nil && sendErr != nil && trust.IsEnd(err) {
		err = fmt.Errorf("sending a hello: %w", sendErr)
	}
	if err != nil {
		if secure {
			err = trust.ExplainRefusal(err)
		}
		return nil, err
	}
	if why := d.self.mismatch(&other); why != "" {
		return nil, errors.New(why)
	}
	if other.Name != to.Name {
		goodbye(conn, fmt.Sprintf("%q was expected at %s, not %q", to.Name, to.Addr, other.Name))
		return nil, trust.OtherMemberError{Err: fmt.Errorf("%q answers at %s where %q was expected", other.Name, to.Addr, to.Name)}
	}
	d.compare(&other)
	if !stop() {
		return nil, ctx.Err()
	}
	return conn, raw.SetDeadline(time.Time{})
}

// welcome runs the accepting side of the handshake.
func (d *Plane) welcome(conn net.Conn) (Hello, error) {
	if err := conn.SetDeadline(time.Now().Add(HelloTimeout)); err != nil {
		return Hello{}, err
	}
	s, secure := conn.(*secured)
	if secure {
		if err := s.shake(); err != nil {
			if s.notTLS(err) {
				goodbye(s.raw, "this node has a Secret or TLS, and you speak without")
			}
			return Hello{}, err
		}
	}
	other, err := ReadHello(conn)
	if err != nil {
		if secure {
			err = trust.ExplainRefusal(err)
		}
		goodbye(conn, err.Error())
		return other, err
	}
	if secure {
		if err := d.cfg.Trust.Names(s.certificate(), other.Name); err != nil {
			goodbye(conn, err.Error())
			return other, err
		}
	}
	if why := d.self.mismatch(&other); why != "" {
		goodbye(conn, why)
		return other, errors.New(why)
	}
	if _, err := conn.Write(d.Hello().Append(nil)); err != nil {
		return other, fmt.Errorf("sending a hello: %w", err)
	}
	d.compare(&other)
	return other, conn.SetDeadline(time.Time{})
}

// compare logs the namespaces that differ at a peer. Those are not shared with it: its requests for them are rejected one
// by one, which its cache treats as misses.
func (d *Plane) compare(other *Hello) {
	here := *d.registry.Load()
	for _, ns := range other.Namespaces {
		r := here[ns.Name]
		if r == nil || r.schema == ns.Schema || !d.noise.Allow("namespace "+ns.Name+" at "+other.Name, time.Now()) {
			continue
		}
		d.cfg.Logger.Warn("a namespace is not shared with a member: its freshness, codec or value type differs there",
			"namespace", ns.Name, "peer", other.Name, "here", fmt.Sprintf("%016x", r.schema), "there", fmt.Sprintf("%016x", ns.Schema))
	}
}

// goodbye sends the reason for closing the connection. It is a courtesy: errors do not matter.
func goodbye(conn net.Conn, reason string) {
	b := codec.BeginFrame(nil, codec.KindGoodbye, 0)
	b = append(b, reason[:min(len(reason), maxReason)]...)
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(codec.EndFrame(b, 0))
}

func isMalformed(err error) bool { return errors.Is(err, codec.ErrFrame) }

// ProvesEnd reports whether the error of a connection attempt proves that the process of the dialled incarnation has ended.
func ProvesEnd(err error) bool {
	var other trust.OtherMemberError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &other)
}
