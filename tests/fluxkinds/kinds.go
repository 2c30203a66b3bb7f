//go:build tools

// Package fluxkinds pins Flux's kinds, as Go types, and what makes CustomResourceDefinitions of them (tests/support/toolkinds.py).
package fluxkinds

import (
	_ "github.com/fluxcd/helm-controller/api/v2"
	_ "github.com/fluxcd/kustomize-controller/api/v1"
	_ "github.com/fluxcd/source-controller/api/v1"
	_ "sigs.k8s.io/controller-tools/cmd/controller-gen"
)
