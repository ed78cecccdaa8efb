package image

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// PullOptions say how an image is fetched from a registry.
type PullOptions struct {
	Platform  *Platform // nil: that of this machine
	PlainHTTP bool      // no TLS; on this machine and in private networks it is tried anyway
}

// Pull asks a registry for the image called ref. Credentials are those of Docker and
// Podman: ~/.docker/config.json with its helpers, $DOCKER_CONFIG, $REGISTRY_AUTH_FILE. Layers are fetched
// when they are opened.
func Pull(ctx context.Context, ref string, o PullOptions) (*Source, error) {
	if o.Platform == nil {
		o.Platform = Host()
	}
	var how []name.Option
	if o.PlainHTTP {
		how = append(how, name.Insecure)
	}
	r, err := name.ParseReference(ref, how...)
	if err != nil {
		return nil, err
	}
	who, err := credentials(r.Context())
	if err != nil {
		return nil, fmt.Errorf("%s: credentials for %s: %w", ref, r.Context().RegistryStr(), err)
	}
	b := &registryBlobs{repo: r.Context(), who: who, options: []remote.Option{remote.WithAuth(who), remote.WithUserAgent("plyfs")}}
	top, err := remote.Get(r, b.with(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, b.explain(err))
	}
	img, err := resolveRaw(ctx, b, &top.Descriptor, top.Manifest, o.Platform, 0)
	if err == nil {
		err = o.Platform.check(img.Config)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	img.Names = []string{ref}
	return &Source{Kind: Registry, Images: []*Image{img}}, nil
}

// credentials looks for what to show to the registry of a repository; a helper is asked once.
func credentials(repo name.Repository) (authn.Authenticator, error) {
	who, err := authn.DefaultKeychain.Resolve(repo)
	if err != nil {
		// It asks for the repository first, which is the default store's; the registry may have a helper of its own.
		who, err = authn.DefaultKeychain.Resolve(repo.Registry)
	}
	return who, err
}

// registryBlobs are those of a repository.
type registryBlobs struct {
	repo    name.Repository
	who     authn.Authenticator
	options []remote.Option
}

func (b *registryBlobs) with(ctx context.Context) []remote.Option {
	return append(b.options[:len(b.options):len(b.options)], remote.WithContext(ctx))
}

// explain says of a refusal what the user can do about it.
func (b *registryBlobs) explain(err error) error {
	host := b.repo.RegistryStr()
	var untrusted *tls.CertificateVerificationError
	var refused *transport.Error
	switch {
	case errors.As(err, &untrusted):
		return fmt.Errorf("%s is not trusted (%w): add its authority's certificate to the system's, or name a file with it in $SSL_CERT_FILE", host, untrusted.Err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%s speaks HTTP without TLS: --plain-http lets it", host)
	case !errors.As(err, &refused):
	case refused.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s has no such image%s", host, reasons(refused))
	case refused.StatusCode != http.StatusUnauthorized && refused.StatusCode != http.StatusForbidden:
	case b.who == authn.Anonymous:
		return fmt.Errorf("%s wants credentials, and there are none, or it has no such image: docker login and podman login write credentials down", host)
	default:
		return fmt.Errorf("%s refuses the credentials that docker login or podman login wrote down (status %d)", host, refused.StatusCode)
	}
	return err
}

// reasons are what a registry itself says of a refusal.
func reasons(refused *transport.Error) string {
	var list []string
	for _, d := range refused.Errors {
		if d.Message != "" {
			list = append(list, d.Message)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list, "; ")
}

func (b *registryBlobs) blob(ctx context.Context, d *v1.Descriptor) (io.ReadCloser, error) {
	at := b.repo.Digest(d.Digest.String())
	if d.MediaType.IsImage() || d.MediaType.IsIndex() {
		m, err := remote.Get(at, b.with(ctx)...)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(m.Manifest)), nil
	}
	l, err := remote.Layer(at, b.with(ctx)...)
	if err != nil {
		return nil, err
	}
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	return &answer{ReadCloser: r, host: b.repo.RegistryStr(), size: d.Size}, nil
}

// answer is a blob as it comes from a registry. That it breaks off is not said of the archive in it.
type answer struct {
	io.ReadCloser
	host       string
	read, size int64
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.read += int64(n)
	switch {
	case err == nil || err == io.EOF || errors.Is(err, context.Canceled):
	case a.read >= a.size:
		err = io.EOF // the library compares digests, too; whoever reads this does, and says it in our words
	default:
		err = fmt.Errorf("%s broke off after %d of %d bytes (%v): try again", a.host, a.read, a.size, err)
	}
	return n, err
}
