"""What each network of a study costs, counted once each on the `meta` device (harness.evaluation.cost)."""

from functools import cached_property

from harness.decoder.base import LossNetwork
from harness.decoder.registry import decoder_of
from harness.encoder.registry import encoder_of
from harness.evaluation import cost
from harness.evaluation.cost import Price
from harness.study.method import EncoderRegisters, denoiser_hook, load_method
from harness.study.study import Study
from harness.training.network import Network

NOTHING = Price(0, 0, 0, 0)


class Networks:
    """The networks of a study, priced."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.encoders: dict[str, Price] = {}
        self.denoisers: dict[object, Price] = {}
        self.kept: dict[object, int] = {}

    def encoder(self, variant: str) -> Price:
        if variant not in self.encoders:
            self.encoders[variant] = price_of(encoder_of(self.study).network(EncoderRegisters.from_key(variant)))
        return self.encoders[variant]

    @cached_property
    def decoder(self) -> Price:
        return price_of(decoder_of(self.study).network())

    @cached_property
    def losses(self) -> list[tuple[LossNetwork, Price]]:
        """The networks of the decoder's loss."""
        return [(loss, price_of(loss.network)) for loss in decoder_of(self.study).losses()]

    @cached_property
    def judge(self) -> Price:
        from harness.evaluation.judge.registry import judge_of  # imports libraries of metrics, which takes seconds

        return price_of(judge_of(self.study).network())

    @cached_property
    def clip(self) -> Price:
        """An image through the image tower; parameters of both towers."""
        from harness.evaluation.clip.registry import clip_of

        return price_of(clip_of(self.study).network())

    def _key(self, method: str) -> object:
        """The same for methods whose denoisers cost the same."""
        return method if denoiser_hook(method) else load_method(method).registers(self.study.denoiser.registers)

    def denoiser(self, method: str) -> Price:
        key = self._key(method)
        if key not in self.denoisers:
            self.denoisers[key] = cost.method_price(self.study, method)
        return self.denoisers[key]

    def kept_for_backward(self, method: str) -> int:
        """Bytes an image, of the method's denoiser."""
        key = self._key(method)
        if key not in self.kept:
            from harness.denoiser.build import build_denoiser

            self.kept[key] = cost.kept_for_backward(self.study, lambda: build_denoiser(self.study, method))
        return self.kept[key]

    @cached_property
    def weak(self) -> Price:
        """The denoiser that guides away from itself."""
        from harness.denoiser.build import build_shape

        weak = self.study.sampling.guidance.weak
        return NOTHING if weak is None else cost.denoiser_price(self.study, lambda: build_shape(self.study, weak))


def price_of(network: Network | None) -> Price:
    return NOTHING if network is None else cost.price(network.build, *network.shape, run=network.run)
