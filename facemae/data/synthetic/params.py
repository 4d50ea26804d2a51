"""All that decides a drawn face, and its labels."""

from dataclasses import dataclass

from facemae.data.synthetic.action_units import Action, sample_action
from facemae.data.synthetic.identity import Identity, sample_identity
from facemae.data.synthetic.scene import Scene, sample_scene

Label = str | float | int | bool


@dataclass(frozen=True)
class FaceParams:
    """One image: who, doing what, seen how.

    Attributes:
        seed: Seed of the data set; also keys the texture of hair, background and noise.
        number: Number of the identity; `sample` of its image.
        identity: Who.
        action: What the face does.
        scene: How it is seen.
    """

    seed: int
    number: int
    sample: int
    identity: Identity
    action: Action
    scene: Scene

    def labels(self) -> dict[str, Label]:
        """Every label: expression, identity, action units, pose in degrees, light, occlusion, attributes."""
        pose, light = self.scene.pose, self.scene.light
        return {
            "expression": self.action.expression,
            "identity": self.identity.name,
            **self.action.labels(),
            "yaw": round(pose.yaw, 2),
            "pitch": round(pose.pitch, 2),
            "roll": round(pose.roll, 2),
            "light": light.kind,
            "light_azimuth": round(light.azimuth, 1),
            "light_elevation": round(light.elevation, 1),
            "light_strength": round(light.strength, 3),
            "occlusion": self.scene.occlusion,
            "background": self.scene.background,
            "glasses": self.identity.glasses,
            "beard": self.identity.beard,
            "hair": self.identity.hair_style,
            "age": round(self.identity.age, 3),
        }


def sample_params(seed: int, identity: int, sample: int, *, expression: str | None = None) -> FaceParams:
    """Draw everything about one image.

    Args:
        seed: Seed of the data set.
        identity: Number of the person.
        sample: Number of this person's image.
        expression: One of `EXPRESSIONS`; drawn where None.

    Returns:
        The parameters: a pure function of the arguments.
    """
    return FaceParams(
        seed=seed,
        number=identity,
        sample=sample,
        identity=sample_identity(seed, identity),
        action=sample_action(seed, identity, sample, expression),
        scene=sample_scene(seed, identity, sample),
    )
