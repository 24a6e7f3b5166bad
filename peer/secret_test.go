package peer

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// tells reports whether text contains the secret, in any of the ways in which bytes are shown.
func tells(text string, secret []byte) string {
	for how, shown := range map[string]string{
		"raw": string(secret), "hex": hex.EncodeToString(secret), "HEX": fmt.Sprintf("%X", secret), "spaced": fmt.Sprintf("% x", secret),
		"decimal": strings.Trim(fmt.Sprint(secret), "[]"), "Go": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte{"), "}"),
		"base64": base64.RawStdEncoding.EncodeToString(secret), "base64url": base64.RawURLEncoding.EncodeToString(secret), "quoted": strings.Trim(fmt.Sprintf("%q", secret), `"`),
	} {
		if strings.Contains(text, shown) {
			return how
		}
	}
	return ""
}

func TestSecretDoesNotPrint(t *testing.T) {
	secret := secretOf("a")
	if tells(fmt.Sprintf("%v", []byte(secret)), secret) != "decimal" || tells(fmt.Sprintf("%x", []byte(secret)), secret) != "hex" {
		t.Fatal("the test does not see a secret that is there")
	}
	cfg := Config{Name: "a", Secret: secret, AcceptSecrets: []Secret{secret}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%o", "%c", "%U", "%t", "%e"} {
		fmt.Fprintf(&out, verb+"\n", secret)
		fmt.Fprintf(&out, verb+"\n", cfg)
		fmt.Fprintf(&out, verb+"\n", &cfg)
		fmt.Fprintf(&out, verb+"\n", settings{Config: cfg})
	}
	fmt.Fprintf(&out, "%p", secret)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		l := slog.New(h)
		l.Info("x", "secret", secret, "secrets", cfg.AcceptSecrets)
		l.Info("x", "cfg", cfg)
	}
	b, err := json.Marshal(struct {
		S Secret
		A []Secret
	}{secret, cfg.AcceptSecrets})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if how := tells(out.String(), secret); how != "" {
		t.Errorf("the secret is there as %s:\n%s", how, out.String())
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing says that there is a secret")
	}
}

// TestSecretIsNotTold checks that a node's log, statistics, errors and own fields contain nothing of the secrets or of what
// is derived from them, neither in normal operation nor on failure.
func TestSecretIsNotTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		secret, next := secretOf("a"), secretOf("b")
		r := newRig()
		n1, n2 := r.two(t, Config{Secret: secret, AcceptSecrets: []Secret{next}})
		n3 := r.add(t, 3, Config{Secret: secretOf("c"), Join: []string{n1.Addr()}})
		mustServe(t, n1, n2)
		refused := ask(t.Context(), n3, memberOf(n1))
		pause(t.Context(), 30*time.Second)
		stats, err := json.Marshal(n1.Stats())
		if err != nil {
			t.Fatal(err)
		}
		all := r.books["n1"].String() + r.books["n2"].String() + string(stats) + fmt.Sprint(refused) + fmt.Sprintf("%+v %#v", n1.cfg, n1.cfg)
		var hidden [][]byte
		for _, s := range []Secret{secret, next, secretOf("c")} {
			hidden = append(hidden, s)
			for _, purpose := range []string{"weir 1 gossip key", "weir 1 certificate authority"} {
				key, err := hkdf.Key(sha256.New, s, nil, purpose, 32)
				if err != nil {
					t.Fatal(err)
				}
				hidden = append(hidden, key)
			}
		}
		for i, b := range hidden {
			if how := tells(all, b); how != "" {
				t.Errorf("%d is told as %s", i, how)
			}
		}
		if !strings.Contains(all, n1.trust.ID) {
			t.Error("nothing says which secret it is")
		}
	})
}

func TestParseSecret(t *testing.T) {
	want := secretOf("a")
	for _, text := range []string{
		hex.EncodeToString(want), "\n " + strings.ToUpper(hex.EncodeToString(want)) + "\r\n",
		base64.StdEncoding.EncodeToString(want), base64.RawURLEncoding.EncodeToString(want),
	} {
		if got, err := ParseSecret(text); err != nil || !got.equal(want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "secret", hex.EncodeToString(want[1:]), base64.StdEncoding.EncodeToString(append(want, 1)), string(want)} {
		_, err := ParseSecret(text)
		if err == nil || !strings.Contains(err.Error(), "openssl rand -hex 32") {
			t.Errorf("%q: %v", text, err)
		} else if len(text) > 6 && strings.Contains(err.Error(), text) {
			t.Errorf("the error has the text in it: %v", err)
		}
	}
}

func TestConfigTrust(t *testing.T) {
	good := secretOf("a")
	for _, c := range []struct {
		name, want string
		cfg        Config
	}{
		{"beyond the loopback without", "there is no Secret", Config{Bind: "10.0.0.1:7946"}},
		{"how to make one", "openssl rand -hex 32", Config{Bind: "10.0.0.1:7946"}},
		{"TLS alone", "TLS does not cover gossip", Config{Bind: "10.0.0.1:7946", TLS: &tls.Config{}}},
		{"every interface", "every interface", Config{Bind: "0.0.0.0:7946", Secret: good}},
		{"short", "Secret: it has 5 bytes", Config{Secret: Secret("short")}},
		{"empty", "Secret: it has 0 bytes", Config{Secret: Secret{}}},
		{"zeros", "Secret: all its bytes are the same", Config{Secret: make(Secret, SecretSize)}},
		{"accept alone", "AcceptSecrets: there is no Secret", Config{AcceptSecrets: []Secret{good}}},
		{"accept short", "AcceptSecrets[0]: it has 1 bytes", Config{Secret: good, AcceptSecrets: []Secret{{1}}}},
		{"accept itself", "AcceptSecrets[0]: it is the Secret itself", Config{Secret: good, AcceptSecrets: []Secret{secretOf("a")}}},
		{"accept many", "at most 4", Config{Secret: good, AcceptSecrets: make([]Secret, 5)}},
		{"TLS that trusts all", "TLS: InsecureSkipVerify", Config{TLS: &tls.Config{InsecureSkipVerify: true}}},
		{"TLS without certificate", "TLS: it has no certificate", Config{TLS: &tls.Config{}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Start(t.Context(), c.cfg)
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
			if err == nil {
				_ = n.Close()
			}
		})
	}
	if _, err := (Config{Bind: "10.0.0.1:7946", Secret: good}).check(); err != nil {
		t.Error(err)
	}
}
