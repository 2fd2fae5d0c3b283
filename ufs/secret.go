package ufs

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/freshet-io/freshet"
)

// maxSecret bounds a secret file in bytes.
const maxSecret = 64 << 10

// Secret holds a secret so that it does not show by accident: it prints, logs
// and marshals as "redacted".
type Secret struct{ value string }

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{value: value} }

// Reveal returns the value.
func (s Secret) Reveal() string { return s.value }

const redacted = "redacted"

// String hides the value.
func (s Secret) String() string { return redacted }

// GoString hides the value.
func (s Secret) GoString() string { return redacted }

// LogValue hides the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// SecretSource says where a secret comes from.
type SecretSource string

// The sources of secrets.
const (
	SecretEnv  SecretSource = "env"  // an environment variable; without a name, the usual ones of the storage
	SecretFile SecretSource = "file" // a file that only its owner can read
	SecretIAM  SecretSource = "iam"  // the identity of the machine; there is no value
)

// SecretRef names a secret without holding it.
type SecretRef struct {
	Source SecretSource
	Name   string // variable or absolute path
}

// String returns the form that ParseSecretRef reads.
func (r SecretRef) String() string {
	if r.Name == "" {
		return string(r.Source)
	}
	return string(r.Source) + ":" + r.Name
}

// ParseSecretRef reads "env", "env:NAME", "file:/absolute/path" or "iam".
// Anything else may be the secret itself: it is refused without being repeated.
func ParseSecretRef(s string) (SecretRef, error) {
	source, name, named := strings.Cut(s, ":")
	ref := SecretRef{Source: SecretSource(source), Name: name}
	inline := fmt.Errorf("secrets are not given inline: use env: or file: reference (env:NAME, file:/path, env or iam)")
	switch ref.Source {
	case SecretEnv:
		if named && !isVariable(name) {
			return SecretRef{}, fmt.Errorf("env: must be followed by the name of an environment variable; %w", inline)
		}
	case SecretFile:
		if !filepath.IsAbs(name) || filepath.Clean(name) != name {
			return SecretRef{}, fmt.Errorf("file: must be followed by an absolute path without '..'")
		}
	case SecretIAM:
		if named {
			return SecretRef{}, fmt.Errorf("iam takes no name")
		}
	default:
		return SecretRef{}, inline
	}
	return ref, nil
}

func isVariable(s string) bool {
	return s != "" && (s[0] < '0' || s[0] > '9') && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	})
}

// Secret returns the value that ref names. A variable that is not set is
// KindInvalid; a file outside SecretDirs, or one that others than its owner can
// read, is KindPermission. Neither names the value.
func (e Environment) Secret(ref SecretRef) (Secret, error) {
	const op = "read secret"
	switch {
	case ref.Source == SecretFile:
		return e.secretFile(ref.Name)
	case ref.Source == SecretEnv && ref.Name != "":
		if e.Getenv != nil {
			if value := e.Getenv(ref.Name); value != "" {
				return NewSecret(value), nil
			}
		}
		return Secret{}, freshet.Errorf(freshet.KindInvalid, op, "", "environment variable %s is not set in this process", ref.Name)
	}
	return Secret{}, freshet.Errorf(freshet.KindInvalid, op, "", "reference '%s' names no single value", ref.Source)
}

func (e Environment) secretFile(name string) (Secret, error) {
	s, err := e.secretData(name)
	if err != nil {
		return Secret{}, err
	}
	value := strings.TrimRight(s.Reveal(), "\r\n")
	if value == "" {
		return Secret{}, freshet.Errorf(freshet.KindInvalid, "read secret", "", "secret file %s: is empty", name)
	}
	return NewSecret(value), nil
}

// SecretData is Secret for a file that is not text, such as a keytab: its bytes as
// they are. A reference to anything but a file is KindInvalid.
func (e Environment) SecretData(ref SecretRef) (Secret, error) {
	if ref.Source != SecretFile {
		return Secret{}, freshet.Errorf(freshet.KindInvalid, "read secret", "", "reference '%s' names no file", ref.Source)
	}
	return e.secretData(ref.Name)
}

func (e Environment) secretData(name string) (Secret, error) {
	const op = "read secret"
	fail := func(k freshet.Kind, format string, args ...any) (Secret, error) {
		return Secret{}, freshet.Errorf(k, op, "", "secret file %s: "+format, append([]any{name}, args...)...)
	}
	if len(e.SecretDirs) > 0 && !below(name, e.SecretDirs) {
		return fail(freshet.KindPermission, "secret files must be under ufs.secret_dirs (%s)", strings.Join(e.SecretDirs, ", "))
	}
	resolved, err := filepath.EvalSymlinks(name)
	if err != nil {
		return fail(freshet.KindInvalid, "%w", err)
	}
	if len(e.SecretDirs) > 0 && !below(resolved, realPaths(e.SecretDirs)) {
		return fail(freshet.KindPermission, "is a link that leaves ufs.secret_dirs (%s)", strings.Join(e.SecretDirs, ", "))
	}
	if info, err := os.Lstat(resolved); err != nil || !info.Mode().IsRegular() {
		return fail(freshet.KindInvalid, "is not a regular file") // before open: a fifo would block
	}
	f, err := os.Open(resolved)
	if err != nil {
		return fail(freshet.KindPermission, "%w", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	switch {
	case err != nil || !info.Mode().IsRegular():
		return fail(freshet.KindInvalid, "is not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return fail(freshet.KindPermission, "mode %04o lets others than its owner in; run chmod 600 on it", info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return fail(freshet.KindUnavailable, "%w", err)
	case len(data) > maxSecret:
		return fail(freshet.KindInvalid, "longer than %d bytes", maxSecret)
	case len(data) == 0:
		return fail(freshet.KindInvalid, "is empty")
	}
	return NewSecret(string(data)), nil
}

// below reports whether name is, or lies below, one of dirs, by whole segments.
func below(name string, dirs []string) bool {
	for _, dir := range dirs {
		if rel, err := filepath.Rel(dir, name); err == nil && (rel == "." || filepath.IsLocal(rel)) {
			return true
		}
	}
	return false
}

// realPaths resolves the links in dirs; one that can't be resolved stays.
func realPaths(dirs []string) []string {
	out := make([]string, len(dirs))
	for i, dir := range dirs {
		out[i] = dir
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			out[i] = resolved
		}
	}
	return out
}
