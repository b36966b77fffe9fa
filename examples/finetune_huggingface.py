"""Fine-tune the folder that `sdclr export --format huggingface` writes, with timm alone.

    sdclr export runs/photos --format huggingface --out exported
    python examples/finetune_huggingface.py exported labelled-photos

`labelled-photos` has a sub-folder for each class.
"""

from __future__ import annotations

import sys

import timm
import torch
import torchvision


def finetune(exported: str, photos: str, epochs: int = 10, batch: int = 32) -> float:
    """Train all weights; the share of training images that the last epoch got right."""
    classes = len(torchvision.datasets.ImageFolder(photos).classes)
    network = timm.create_model(f"local-dir:{exported}", pretrained=True, num_classes=classes)
    constants = timm.data.resolve_model_data_config(network)  # image size, mean, std
    transform = timm.data.create_transform(**constants, is_training=False)
    dataset = torchvision.datasets.ImageFolder(photos, transform)
    loader = torch.utils.data.DataLoader(dataset, batch, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    right = 0
    for _ in range(epochs):
        right = 0
        for images, labels in loader:
            logits = network.train()(images)
            loss = torch.nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((logits.argmax(1) == labels).sum())
    return right / len(dataset)


if __name__ == "__main__":
    print(f"{finetune(sys.argv[1], sys.argv[2]):.1%} of the training images are right")
