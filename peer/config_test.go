package peer

import (
	"errors"
	"strings"
	"testing"

	"github.com/weircache/weir/ring"
)

func TestConfigErrorsAllAtOnce(t *testing.T) {
	_, err := Start(t.Context(), Config{
		Name: "two words", Zone: "two words", Bind: "0.0.0.0:7946", Advertise: "here", Join: []string{"a", "b:0", "c:99999"},
		ClusterName: strings.Repeat("c", MaxClusterName+1), Ring: ring.Config{Load: 0.5},
		Connections: -1, ValueLimit: -1, InFlightBytes: 1, MinMembers: -1, RejoinInterval: -1,
		Gossip: Gossip{ProbeTimeout: 1e9, ProbeInterval: 1e9, SuspicionMult: -1},
	})
	if !errors.Is(err, ErrConfig) {
		t.Fatalf("the error is %v", err)
	}
	for _, want := range []string{"Name:", "Zone:", "Bind:", "Advertise:", "Join[0]", "Join[1]", "Join[2]", "ClusterName:", "Ring:", "Connections:",
		"ValueLimit:", "MinMembers:", "RejoinInterval:", "ProbeTimeout", "SuspicionMult:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
}

func TestConfigOneByOne(t *testing.T) {
	for _, c := range []struct {
		name, want string
		cfg        Config
	}{
		{"not on the loopback", "not on the loopback", Config{Bind: "10.0.0.1:7946"}},
		{"every interface", "every interface", Config{Bind: "[::]:7946"}},
		{"no host", "no host", Config{Bind: ":7946"}},
		{"advertise port 0", "cannot dial", Config{Advertise: "127.0.0.1:0"}},
		{"in flight", "InFlightBytes", Config{InFlightBytes: 10}},
		{"control character", "Name", Config{Name: "a\x00"}},
		{"bad UTF-8", "UTF-8", Config{Name: "\xff"}},
		{"long name", "limit", Config{Name: strings.Repeat("n", MaxName+1)}},
		{"long zone", "Zone", Config{Zone: strings.Repeat("z", MaxZone+1)}},
		{"zone with a line break", "Zone", Config{Zone: "a\nb"}},
		{"value limit", "ValueLimit", Config{ValueLimit: MaxValueLimit + 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Start(t.Context(), c.cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestConfigDefaults(t *testing.T) {
	s, err := Config{}.check()
	if err != nil {
		t.Fatal(err)
	}
	if s.Bind != DefaultBind || s.ClusterName != DefaultClusterName || s.Connections != DefaultConnections ||
		s.ValueLimit != DefaultValueLimit || s.InFlightBytes != DefaultInFlightBytes || s.MinMembers != 1 {
		t.Errorf("the defaults are %+v", s.Config)
	}
	n := start(t, Config{Logger: quick("").Logger})
	if n.Name() != n.Addr() {
		t.Errorf("the default name is %q, the address %q", n.Name(), n.Addr())
	}
	if _, err := (Config{Bind: "localhost:0"}).check(); err != nil {
		t.Error(err)
	}
}
